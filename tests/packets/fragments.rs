//! Fragments of masqueraded datagrams, both ways, in order and out of it.

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{CLIENT, NODE_1, OUTSIDE};
use netplug_tests::packet::{
    Packet, assert_same, echo, echo_reply, eth, fragments, ip, payload, tcp, udp,
};
use rstest::rstest;

use crate::datapath::{Datapath, HERE, NEXT, SHOT};
use crate::masquerade::with_one_port;

const ID: u16 = 7;
/// What is behind a fragment's IP header.
const SIZE: usize = 24;
const TEXT: &[u8] = b"a question that is longer than what one frame of this road can carry";

fn leaving(family: Family, from: (netplug_tests::cast::Actor, u16), protocol: u8) -> Vec<Vec<u8>> {
    let start = eth(NODE_1, OUTSIDE) / ip(family, from.0, OUTSIDE);
    cut(&match protocol {
        6 => start / tcp(from.1, 80).ack() / payload(TEXT),
        17 => start / udp(from.1, 80) / payload(TEXT),
        _ => start / echo(from.1, 1) / payload(TEXT),
    })
}

fn entering(family: Family, to: (netplug_tests::cast::Actor, u16), protocol: u8) -> Vec<Vec<u8>> {
    let start = eth(OUTSIDE, NODE_1) / ip(family, OUTSIDE, to.0);
    cut(&match protocol {
        6 => start / tcp(80, to.1).ack() / payload(TEXT),
        17 => start / udp(80, to.1) / payload(TEXT),
        _ => start / echo_reply(to.1, 1) / payload(TEXT),
    })
}

fn cut(packet: &Packet) -> Vec<Vec<u8>> {
    fragments(packet, SIZE, ID)
}

#[track_caller]
fn become_in_turn(datapath: &mut Datapath, program: &str, from: &[Vec<u8>], to: &[Vec<u8>]) {
    assert!(from.len() > 2);
    for (fragment, wanted) in from.iter().zip(to) {
        let (verdict, out) = datapath.run_bytes(program, HERE, fragment);
        assert_eq!(verdict, NEXT);
        assert_same(wanted, &out);
    }
}

#[rstest]
fn a_datagrams_fragments_leave_as_the_node_and_come_back(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
) {
    let mut datapath = with_one_port();
    let (out, left) =
        (leaving(family, (CLIENT, 40_000), protocol), leaving(family, (NODE_1, 2000), protocol));
    become_in_turn(&mut datapath, "to_uplink", &out, &left);
    let (back, entered) =
        (entering(family, (NODE_1, 2000), protocol), entering(family, (CLIENT, 40_000), protocol));
    become_in_turn(&mut datapath, "from_uplink", &back, &entered);
}

#[rstest]
fn fragments_to_the_host_are_the_hosts(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let hosts = entering(family, (NODE_1, 40_000), 17);
    become_in_turn(&mut datapath, "from_uplink", &hosts, &hosts);
    assert_eq!(datapath.counted(Counter::FragmentKept), 0);
}

/// Of a stranger's, of another protocol: nothing is known of it, and it has what looks like a datagram's fragments behind it.
#[rstest]
fn another_datagrams_fragments_are_not_taken_along(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let out = leaving(family, (CLIENT, 40_000), 17);
    assert_eq!(datapath.run_bytes("to_uplink", HERE, &out[0]).0, NEXT);
    let packet = eth(NODE_1, OUTSIDE) / ip(family, CLIENT, OUTSIDE) / udp(40_000, 80);
    let other = fragments(&(packet / payload(TEXT)), SIZE, ID + 1);
    assert_eq!(datapath.run_bytes("to_uplink", HERE, &other[1]).0, SHOT);
}

#[rstest]
fn what_leaves_before_its_first_is_kept_and_goes_behind_it(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let (out, left) = (leaving(family, (CLIENT, 40_000), 17), leaving(family, (NODE_1, 2000), 17));
    for early in [2, 1] {
        assert_eq!(datapath.run_bytes("to_uplink", HERE, &out[early]).0, SHOT);
    }
    assert_eq!(datapath.counted(Counter::FragmentKept), 2);
    become_in_turn(&mut datapath, "to_uplink", &[&out[..1], &out[1..]].concat(), &left);
    assert_eq!(datapath.counted(Counter::FragmentReleased), 2);
    assert_eq!(datapath.counted(Counter::FirstMissing), 0);
}

#[rstest]
fn what_enters_before_its_first_goes_to_the_host_too(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let out = leaving(family, (CLIENT, 40_000), 17);
    assert_eq!(datapath.run_bytes("to_uplink", HERE, &out[0]).0, NEXT);
    let (back, entered) =
        (entering(family, (NODE_1, 2000), 17), entering(family, (CLIENT, 40_000), 17));
    for early in [2, 1] {
        let (verdict, out) = datapath.run_bytes("from_uplink", HERE, &back[early]);
        assert_eq!(verdict, NEXT);
        assert_same(&back[early], &out);
    }
    let (verdict, out) = datapath.run_bytes("from_uplink", HERE, &back[0]);
    assert_eq!(verdict, NEXT);
    assert_same(&entered[0], &out);
    assert_eq!(datapath.counted(Counter::FragmentReleased), 2);
    // The host's own do not come a second time.
    let hosts = entering(family, (NODE_1, 40_000), 1);
    for at in [1, 0] {
        let (verdict, out) = datapath.run_bytes("from_uplink", HERE, &hosts[at]);
        assert_eq!(verdict, NEXT);
        assert_same(&hosts[at], &out);
    }
    assert_eq!(datapath.counted(Counter::FragmentReleased), 2);
}

#[test]
fn those_whose_first_never_comes_are_counted() {
    let mut datapath = with_one_port();
    for id in 0..netplug_common::maps::HELD + 5 {
        let packet = eth(NODE_1, OUTSIDE) / ip(V4, CLIENT, OUTSIDE) / udp(1, 80) / payload(TEXT);
        let id = u16::try_from(id).unwrap();
        let later = &fragments(&packet, SIZE, id)[1];
        assert_eq!(datapath.run_bytes("to_uplink", HERE, later).0, SHOT);
    }
    assert_eq!(datapath.counted(Counter::FirstMissing), 5);
}
