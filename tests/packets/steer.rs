//! What is brought before the host, and what is left to the bridge.

use netplug_common::counter::Counter;
use netplug_common::decide::retry::TRIES;
use netplug_common::maps::config::STEERING_DIRECT;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, CLIENT, GATEWAY, INTRANET, OUTSIDE, WEB};
use netplug_tests::packet::{
    Neighbour, echo, eth, ip, ipv6, neighbour_solicitation, payload, tcp, udp,
};
use rstest::rstest;

use crate::datapath::{Datapath, NEXT};

#[rstest]
fn a_packet_for_another_pod_is_addressed_to_the_gateway(#[values(V4, V6)] family: Family) {
    let mut datapath = Datapath::new();
    let to = |mac| eth(CLIENT, mac) / ip(family, CLIENT, WEB) / udp(40000, 53) / payload(b"hello");
    datapath.enters(&to(WEB), NEXT, &to(GATEWAY));
    assert_eq!(datapath.counted(Counter::Visit), 1);
}

#[rstest]
fn a_packet_for_the_gateway_is_left_as_it_is(#[values(V4, V6)] family: Family) {
    let mut datapath = Datapath::new();
    let packet = eth(CLIENT, GATEWAY)
        / ip(family, CLIENT, OUTSIDE)
        / tcp(40000, 80).ack()
        / payload(b"hello");
    datapath.enters(&packet, NEXT, &packet);
}

/// Nobody knows who is behind it: neither is its source looked at, nor is it remembered or let past the host.
#[rstest]
fn an_adopted_ports_packets_are_steered_and_no_more(#[values(V4, V6)] family: Family) {
    let mut datapath = Datapath::adopting();
    datapath.configure(|config| config.steering = STEERING_DIRECT);
    for (who, number) in [(CLIENT, 1), (OUTSIDE, 2)] {
        let to = |mac| eth(who, mac) / ip(family, who, WEB) / udp(40000, 53) / payload(b"hello");
        datapath.enters(&to(WEB), NEXT, &to(GATEWAY));
        let to = |mac| eth(who, mac) / ip(family, who, WEB) / tcp(40000, 80).syn();
        datapath.enters(&to(WEB), NEXT, &to(GATEWAY));
        assert_eq!(datapath.counted(Counter::Aside), 2 * number);
    }
    assert_eq!(datapath.counted(Counter::Visit), 0);
    let elsewhere = Actor { v4: INTRANET.v4, v6: INTRANET.v6, ..WEB };
    let left = eth(CLIENT, WEB) / ip(family, CLIENT, elsewhere) / udp(40000, 53);
    datapath.enters(&left, NEXT, &left);
}

/// Every pod of the bridge would take it, and no rule in FORWARD would have seen it.
#[rstest]
fn a_packet_for_one_pod_in_a_frame_for_all_is_addressed_to_the_gateway(
    #[values(V4, V6)] family: Family,
    #[values([0xff; 6], [0x01, 0, 0x5e, 0, 0, 1])] mac: [u8; 6],
) {
    let mut datapath = Datapath::new();
    let all = Actor { mac, ..WEB };
    let to = |whom, about| eth(CLIENT, whom) / ip(family, CLIENT, about) / udp(40000, 53);
    datapath.enters(&to(all, WEB), NEXT, &to(GATEWAY, WEB));
    datapath.enters(&to(all, OUTSIDE), NEXT, &to(all, OUTSIDE));
}

#[rstest]
fn openings_closings_and_echoes_visit_without_being_remembered(#[values(V4, V6)] family: Family) {
    let mut datapath = Datapath::new();
    for packet in [
        eth(CLIENT, GATEWAY) / ip(family, CLIENT, WEB) / tcp(40000, 80).syn(),
        eth(CLIENT, GATEWAY) / ip(family, CLIENT, WEB) / tcp(40000, 80).fin().ack(),
        eth(CLIENT, GATEWAY) / ip(family, CLIENT, WEB) / tcp(40000, 80).rst(),
        eth(CLIENT, GATEWAY) / ip(family, CLIENT, WEB) / echo(1, 1) / payload(b"hello"),
    ] {
        datapath.enters(&packet, NEXT, &packet);
    }
    assert_eq!(datapath.counted(Counter::Aside), 4);
    assert_eq!(datapath.counted(Counter::Visit), 0);
}

#[rstest]
fn a_flow_that_never_comes_out_is_left_alone_for_a_while(#[values(V4, V6)] family: Family) {
    let mut datapath = Datapath::new();
    let packet = eth(CLIENT, GATEWAY) / ip(family, CLIENT, GATEWAY) / udp(40000, 53);
    for _ in 0..20 {
        datapath.enters(&packet, NEXT, &packet);
    }
    assert_eq!(datapath.counted(Counter::Visit), u64::from(TRIES));
    assert_eq!(datapath.counted(Counter::Aside), u64::from(20 - TRIES));
}

#[test]
fn neighbour_discovery_is_left_to_the_bridge() {
    let mut datapath = Datapath::new();
    let question = neighbour_solicitation(CLIENT, WEB.v6);
    datapath.enters(&question, NEXT, &question);
    // Whether somebody is still there is asked of that one alone (RFC 4861 §7.3.3).
    let probe = Neighbour { advertises: false, target: WEB.v6, mac: CLIENT.mac };
    let probe = eth(CLIENT, WEB) / ipv6(CLIENT, WEB).ttl(255) / probe;
    datapath.enters(&probe, NEXT, &probe);
}

#[test]
fn a_broken_off_packet_is_the_hosts() {
    let mut datapath = Datapath::new();
    let whole = eth(CLIENT, GATEWAY) / ipv6(CLIENT, WEB) / tcp(40000, 80).ack();
    for length in [54, 56, 60] {
        let broken = whole.clone().truncated_to(length);
        datapath.enters(&broken, NEXT, &broken);
    }
}

#[rstest]
fn the_programs_load_at_every_log_level(#[values(0, 1, 2, 3, 4, 5)] level: u8) {
    Datapath::logging(level);
}
