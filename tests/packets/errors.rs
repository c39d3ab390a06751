//! ICMP errors about masqueraded flows, whole packets, quotes and their checksums among them.

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, CLIENT, NODE_1, OUTSIDE, WEB};
use netplug_tests::packet::{
    Packet, echo, eth, ip, payload, port_unreachable, quoting, sctp, tcp, too_big, udp,
};
use rstest::rstest;

use crate::datapath::{Datapath, HERE, NEXT, SHOT};
use crate::masquerade::{back, becomes, out, with_one_port};

/// A router on the way.
const ROUTER: Actor = Actor {
    name: "router",
    v4: std::net::Ipv4Addr::new(198, 51, 100, 1),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1),
    mac: OUTSIDE.mac,
};
/// More than any packet here has.
const WHOLE: usize = 1_000;

fn octets(family: Family, is_whole: bool) -> usize {
    // Routers need quote no more than the header and eight octets (RFC 792).
    if is_whole {
        WHOLE
    } else if family == V4 {
        28
    } else {
        48
    }
}

/// The datapath after a flow of CLIENT's has left.
fn after(family: Family, protocol: u8) -> Datapath {
    let mut datapath = with_one_port();
    let (leaves, left) =
        (out(family, CLIENT, 40000, protocol), out(family, NODE_1, 2000, protocol));
    becomes(&mut datapath, "to_uplink", &leaves, &left);
    datapath
}

fn comes(family: Family, to: Actor, about: &Packet, octets: usize) -> Packet {
    eth(OUTSIDE, NODE_1) / ip(family, ROUTER, to) / too_big(family, 1300) / quoting(about, octets)
}

#[rstest]
fn an_error_finds_the_pod_whose_packet_it_quotes(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
    #[values(true, false)] is_whole: bool,
) {
    let mut datapath = after(family, protocol);
    let octets = octets(family, is_whole);
    becomes(
        &mut datapath,
        "from_uplink",
        &comes(family, NODE_1, &out(family, NODE_1, 2000, protocol), octets),
        &comes(family, CLIENT, &out(family, CLIENT, 40000, protocol), octets),
    );
    assert_eq!(datapath.counted(Counter::Unmasqueraded), 1);
}

#[rstest]
fn an_error_of_a_pods_leaves_as_the_node(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
    #[values(true, false)] is_whole: bool,
) {
    let mut datapath = after(family, protocol);
    let says = |from, about: &Packet| {
        eth(NODE_1, OUTSIDE)
            / ip(family, from, OUTSIDE)
            / port_unreachable(family)
            / quoting(about, octets(family, is_whole))
    };
    becomes(
        &mut datapath,
        "to_uplink",
        &says(CLIENT, &back(family, CLIENT, 40000, protocol)),
        &says(NODE_1, &back(family, NODE_1, 2000, protocol)),
    );
    // About what nobody has sent it, and about another's: a pod's address is of no use outside.
    for about in [back(family, CLIENT, 40001, protocol), back(family, WEB, 40000, protocol)] {
        assert_eq!(datapath.run("to_uplink", HERE, &says(CLIENT, &about)).0, SHOT);
    }
    assert_eq!(datapath.counted(Counter::NotTranslatable), 2);
}

#[rstest]
fn a_quoted_datagram_without_a_checksum_stays_without(#[values(true, false)] is_whole: bool) {
    let about = |from, port| {
        use netplug_tests::packet::{ipv4, payload, udp};
        eth(NODE_1, OUTSIDE) / ipv4(from, OUTSIDE) / udp(port, 80).no_checksum() / payload(b"data")
    };
    let octets = octets(V4, is_whole);
    becomes(
        &mut after(V4, 17),
        "from_uplink",
        &comes(V4, NODE_1, &about(NODE_1, 2000), octets),
        &comes(V4, CLIENT, &about(CLIENT, 40000), octets),
    );
}

/// IPv4's options, and IPv6's headers of options, are quoted as well.
#[rstest]
fn what_is_quoted_may_have_options(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
) {
    let about = |from: Actor, port| {
        let start = eth(NODE_1, OUTSIDE) / ip(family, from, OUTSIDE).options(3);
        match protocol {
            6 => start / tcp(port, 80).ack() / payload(b"question"),
            17 => start / udp(port, 80) / payload(b"question"),
            _ => start / echo(port, 1) / payload(b"question"),
        }
    };
    becomes(
        &mut after(family, protocol),
        "from_uplink",
        &comes(family, NODE_1, &about(NODE_1, 2000), WHOLE),
        &comes(family, CLIENT, &about(CLIENT, 40000), WHOLE),
    );
}

/// Its checksum is not among what is quoted at least, and is left alone where it is.
#[rstest]
fn an_error_about_an_association_finds_its_pod(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let sent = |from: Actor, port| eth(NODE_1, OUTSIDE) / ip(family, from, OUTSIDE) / sctp(port, 9);
    becomes(&mut datapath, "to_uplink", &sent(CLIENT, 5000), &sent(NODE_1, 2000));
    let octets = octets(family, false);
    becomes(
        &mut datapath,
        "from_uplink",
        &comes(family, NODE_1, &sent(NODE_1, 2000), octets),
        &comes(family, CLIENT, &sent(CLIENT, 5000), octets),
    );
}

#[rstest]
fn an_error_about_no_mapping_is_the_hosts(#[values(V4, V6)] family: Family) {
    let mut datapath = after(family, 17);
    for (to, about) in [
        // The host's own packet, a mapping's to another port, and one that goes to another than it quotes.
        (NODE_1, out(family, NODE_1, 40000, 17)),
        (NODE_1, out(family, NODE_1, 2001, 17)),
        (WEB, out(family, NODE_1, 2000, 17)),
    ] {
        let error = comes(family, to, &about, WHOLE);
        becomes(&mut datapath, "from_uplink", &error, &error);
    }
    // Too short to tell a port.
    let short = comes(family, NODE_1, &out(family, NODE_1, 2000, 17), octets(family, false) - 6);
    let (verdict, _) = datapath.run("from_uplink", HERE, &short);
    assert_eq!(verdict, NEXT);
    assert_eq!(datapath.counted(Counter::Unmasqueraded), 0);
}
