//! The host's own flows, which no cached decision may capture.

use netplug_common::counter::Counter;
use netplug_common::ip::V4;
use netplug_common::tuple::TCP;
use netplug_tests::cast::{Actor, NODE_1, OUTSIDE, WEB};
use netplug_tests::packet::{assert_same, eth, ipv4, payload, tcp};

use crate::datapath::{Datapath, HERE, NEXT, REDIRECT, flow, tuple};

/// Ports of `ip_local_port_range` belong to the host's sockets; those below may be a NodePort's.
#[test]
fn answers_to_the_hosts_own_calls_are_not_captured() {
    for (port, verdict) in [(40000, NEXT), (31000, REDIRECT)] {
        let mut datapath = Datapath::new();
        let entered = tuple::<V4>(TCP, (OUTSIDE, 443), (NODE_1, port));
        datapath.learned(entered, flow(&entered, tuple(TCP, (OUTSIDE, 443), (WEB, 80)), 0));
        let answer = eth(OUTSIDE, NODE_1)
            / ipv4(OUTSIDE, NODE_1)
            / tcp(443, port).ack()
            / payload(b"answer");
        let (got, out) = datapath.run("from_uplink", HERE, &answer);
        assert_eq!(got, verdict, "{port}");
        if verdict == NEXT {
            assert_same(&answer.bytes(), &out);
            assert_eq!(datapath.counted(Counter::Visit) + datapath.counted(Counter::Aside), 0);
        }
    }
}

/// The host forwards what is for its MAC alone (RFC 1812 §5.3.4): what is for another station's, or for all, it sees itself.
#[test]
fn a_frame_for_other_stations_is_not_followed() {
    let everybody = Actor { mac: [0xff; 6], ..NODE_1 };
    let many = Actor { mac: [1, 0, 0x5e, 0, 0, 1], ..NODE_1 };
    let another = Actor { mac: [2, 0, 0, 0, 0, 0x99], ..NODE_1 };
    for (to, verdict) in [(NODE_1, REDIRECT), (everybody, NEXT), (many, NEXT), (another, NEXT)] {
        let mut datapath = Datapath::new();
        let entered = tuple::<V4>(TCP, (OUTSIDE, 443), (NODE_1, 31_000));
        datapath.learned(entered, flow(&entered, tuple(TCP, (OUTSIDE, 443), (WEB, 80)), 0));
        let packet =
            eth(OUTSIDE, to) / ipv4(OUTSIDE, to) / tcp(443, 31_000).ack() / payload(b"question");
        let (got, _) = datapath.run("from_uplink", HERE, &packet);
        assert_eq!(got, verdict, "{:x?}", to.mac);
    }
}
