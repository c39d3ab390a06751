//! What a real sender leaves to the device: sums that are to be made, and packets that are to be cut.

use std::net::{IpAddr, SocketAddr};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE};
use netplug_tests::packet::checksum;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Capture, Offloaded};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Learn};
use crate::scene::{PORT, Scene};

const ETHERNET: usize = 14;

/// The sum that a sender leaves in a packet for a device to go on with: that of the pseudo-header, folded and not inverted.
fn left_to_device(frame: &[u8], ip: Family, protocol: Protocol, start: usize) -> u16 {
    let addresses = if ip == V4 { &frame[26..34] } else { &frame[22..54] };
    let number = if protocol == Tcp { 6 } else { 17 };
    let length = frame.len() - start;
    !checksum::finish(checksum::sum(addresses) + number + length as u64)
}

fn is_from(frame: &[u8], source: IpAddr) -> bool {
    match source {
        IpAddr::V4(source) => frame[12..14] == [8, 0] && frame[26..30] == source.octets(),
        IpAddr::V6(source) => frame[12..14] == [0x86, 0xdd] && frame[22..38] == source.octets(),
    }
}

/// Both ways of a masqueraded flow, visits and packets on the short way.
#[rstest]
fn what_is_left_to_the_device_is_right_after_translation(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let outside = scene.node.outside();
    outside.listen(PORT);
    let (there, here) = (
        Capture::on(outside.namespace(), "eth0").unwrap(),
        Capture::on(scene.client.namespace(), "eth0").unwrap(),
    );
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut talk = scene.client.dial(to).open(protocol).unwrap();
    talk.ask_times(10).unwrap();
    if protocol == Tcp {
        talk.send_bulk(100_000).unwrap();
        talk.fetch_bulk(100_000).unwrap();
    }
    let end = talk.ask("the last one").unwrap();
    assert_eq!(end.client_ip(), NODE_1.ip(ip));
    for (capture, from, last) in
        [(&there, NODE_1.ip(ip), "the last one\n"), (&here, OUTSIDE.ip(ip), "the last one\n")]
    {
        let (mut partial, mut large) = (0, 0);
        loop {
            let packet = capture.next().unwrap();
            if !is_from(&packet.frame, from) {
                continue;
            }
            let Offloaded { checksum, segment, frame } = &packet;
            if let Some((start, offset)) = *checksum {
                let field = &frame[start + offset..start + offset + 2];
                let wanted = left_to_device(frame, ip, protocol, start);
                assert_eq!(field, wanted.to_be_bytes(), "{packet:02x?}");
                partial += 1;
            }
            large += usize::from(segment.is_some());
            if ip == V4 {
                assert_eq!(checksum::of(&frame[ETHERNET..ETHERNET + 20]), 0, "{packet:02x?}");
            }
            if frame.ends_with(last.as_bytes()) {
                break;
            }
        }
        assert!(partial >= 10, "{partial}");
        assert!(protocol == Udp || large > 0);
    }
}
