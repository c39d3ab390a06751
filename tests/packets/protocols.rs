//! What masquerade makes of other protocols, options and extension headers.

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, CLIENT, NODE_1, OUTSIDE};
use netplug_tests::packet::{Packet, echo, eth, fragments, ip, payload, sctp, tcp, udp};
use rstest::rstest;

use crate::datapath::{HERE, SHOT};
use crate::masquerade::{becomes, with_one_port};

fn association(family: Family, from: (Actor, u16), to: (Actor, u16), chunk: u8) -> Packet {
    eth(OUTSIDE, NODE_1)
        / ip(family, from.0, to.0)
        / sctp(from.1, to.1).chunk(chunk)
        / payload(b"any number of octets")
}

#[rstest]
fn an_sctp_association_leaves_as_the_node(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    for chunk in [1, 10, 0] {
        becomes(
            &mut datapath,
            "to_uplink",
            &association(family, (CLIENT, 5000), (OUTSIDE, 36_412), chunk),
            &association(family, (NODE_1, 2000), (OUTSIDE, 36_412), chunk),
        );
        becomes(
            &mut datapath,
            "from_uplink",
            &association(family, (OUTSIDE, 36_412), (NODE_1, 2000), chunk),
            &association(family, (OUTSIDE, 36_412), (CLIENT, 5000), chunk),
        );
    }
}

/// A device is to fill it in.
#[rstest]
fn an_sctp_packet_without_a_checksum_stays_without(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let packet = |from: Actor, port| {
        eth(NODE_1, OUTSIDE) / ip(family, from, OUTSIDE) / sctp(port, 9).no_checksum()
    };
    becomes(&mut datapath, "to_uplink", &packet(CLIENT, 5000), &packet(NODE_1, 2000));
}

/// Its checksum covers what other fragments carry.
#[rstest]
fn an_sctp_packet_in_fragments_leaves_only_by_its_own_port(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let cut = |from: Actor, port| {
        let packet = eth(NODE_1, OUTSIDE) / ip(family, from, OUTSIDE) / sctp(port, 9);
        fragments(&(packet / payload(&[7; 60])), 32, 1)
    };
    for (fragment, wanted) in cut(CLIENT, 2000).iter().zip(&cut(NODE_1, 2000)) {
        let (_, out) = datapath.run_bytes("to_uplink", HERE, fragment);
        netplug_tests::packet::assert_same(wanted, &out);
    }
    let mut datapath = with_one_port();
    assert_eq!(datapath.run_bytes("to_uplink", HERE, &cut(CLIENT, 5000)[0]).0, SHOT);
    assert_eq!(datapath.counted(Counter::SctpFragment), 1);
}

#[rstest]
fn options_and_extension_headers_are_passed_over(
    #[values(V4, V6)] family: Family,
    #[values(1, 3, 6)] options: u8,
    #[values(6, 17, 1)] protocol: u8,
) {
    let mut datapath = with_one_port();
    let packet = |from: Actor, port| {
        let start = eth(NODE_1, OUTSIDE) / ip(family, from, OUTSIDE).options(options);
        match protocol {
            6 => start / tcp(port, 80).ack() / payload(b"text"),
            17 => start / udp(port, 80) / payload(b"text"),
            _ => start / echo(port, 1) / payload(b"text"),
        }
    };
    becomes(&mut datapath, "to_uplink", &packet(CLIENT, 40_000), &packet(NODE_1, 2000));
}

#[test]
fn what_cannot_be_translated_does_not_leave() {
    let mut datapath = with_one_port();
    // More headers than are passed over.
    let hidden = eth(NODE_1, OUTSIDE) / ip(V6, CLIENT, OUTSIDE).options(7) / udp(1, 2);
    assert_eq!(datapath.run("to_uplink", HERE, &hidden).0, SHOT);
    // GRE: neither ports nor an identifier.
    let mut other = (eth(NODE_1, OUTSIDE) / ip(V4, CLIENT, OUTSIDE) / payload(b"tunnel")).bytes();
    other[23] = 47;
    assert_eq!(datapath.run_bytes("to_uplink", HERE, &other).0, SHOT);
    assert_eq!(datapath.counted(Counter::NotTranslatable), 2);
}
