//! Masquerade out and back, whole packets.

use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::{Lifetimes, Stage, may_give_way};
use netplug_common::decide::port_choice::{PortRange, PortRanges};
use netplug_common::ip;
use netplug_common::maps::config::{MASQUERADE_LINK_LOCAL4, MASQUERADE_LINK_LOCAL6};
use netplug_common::maps::flow::Flow;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, CLIENT, NODE_1, OUTSIDE, WEB};
use netplug_tests::packet;
use netplug_tests::packet::{Packet, assert_same, echo, echo_reply, eth, payload, tcp, udp};
use rstest::rstest;

use crate::datapath::{self, Datapath, HERE, NEXT, SHOT, flow, tuple};

/// Leaves and comes back by ports of one, so that the port is known.
pub fn with_one_port() -> Datapath {
    with_ports(1)
}

/// Leaves and comes back by so many ports, from 2000 on.
fn with_ports(count: u16) -> Datapath {
    let mut datapath = Datapath::new();
    datapath.configure(|config| {
        let range = PortRange { first: 2000, last: 1999 + count };
        config.masquerade_ports = PortRanges {
            ranges: [range, PortRange::EMPTY, PortRange::EMPTY, PortRange::EMPTY],
            count: count.into(),
        };
    });
    datapath
}

#[track_caller]
pub fn becomes(datapath: &mut Datapath, program: &str, packet: &Packet, wanted: &Packet) {
    let (verdict, out) = datapath.run(program, HERE, packet);
    assert_eq!(verdict, NEXT, "{packet}");
    assert_same(&wanted.bytes(), &out);
}

pub fn out(family: Family, from: Actor, port: u16, protocol: u8) -> Packet {
    let start = eth(NODE_1, OUTSIDE) / packet::ip(family, from, OUTSIDE);
    match protocol {
        6 => start / tcp(port, 80).ack() / payload(b"question"),
        17 => start / udp(port, 80) / payload(b"question"),
        _ => start / echo(port, 1) / payload(b"question"),
    }
}

pub fn back(family: Family, to: Actor, port: u16, protocol: u8) -> Packet {
    let start = eth(OUTSIDE, NODE_1) / packet::ip(family, OUTSIDE, to);
    match protocol {
        6 => start / tcp(80, port).ack() / payload(b"answer"),
        17 => start / udp(80, port) / payload(b"answer"),
        _ => start / echo_reply(port, 1) / payload(b"answer"),
    }
}

#[rstest]
fn a_flow_leaves_as_the_node_and_its_answers_find_back(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
) {
    let mut datapath = with_one_port();
    for _ in 0..2 {
        becomes(
            &mut datapath,
            "to_uplink",
            &out(family, CLIENT, 40000, protocol),
            &out(family, NODE_1, 2000, protocol),
        );
        becomes(
            &mut datapath,
            "from_uplink",
            &back(family, NODE_1, 2000, protocol),
            &back(family, CLIENT, 40000, protocol),
        );
    }
    assert_eq!(datapath.counted(Counter::Masqueraded), 2);
    assert_eq!(datapath.counted(Counter::Unmasqueraded), 2);
}

#[rstest]
fn without_a_free_port_a_flow_is_dropped_and_counted(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    becomes(
        &mut datapath,
        "to_uplink",
        &out(family, CLIENT, 40000, 17),
        &out(family, NODE_1, 2000, 17),
    );
    assert_eq!(datapath.run("to_uplink", HERE, &out(family, CLIENT, 40001, 17)).0, SHOT);
    assert_eq!(datapath.counted(Counter::PortsExhausted), 1);
}

#[test]
fn each_half_writes_the_other_again() {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = with_one_port();
        let leaves = (out(family, CLIENT, 40000, 17), out(family, NODE_1, 2000, 17));
        let answer = (back(family, NODE_1, 2000, 17), back(family, CLIENT, 40000, 17));
        becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
        for (map, program, (packet, wanted)) in
            [(V::NAT_IN, "to_uplink", &leaves), (V::NAT_OUT, "from_uplink", &answer)]
        {
            datapath.lose::<V>(map, |_| true);
            becomes(&mut datapath, program, packet, wanted);
            assert_eq!(datapath.halves::<V>(map).len(), 1, "{map}");
        }
    }
    run::<ip::V4>(V4);
    run::<ip::V6>(V6);
}

/// Its first choice was taken when it began, and is free now: it must stay where it is.
#[rstest]
fn a_flow_that_lost_a_half_keeps_its_port(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
) {
    fn run<V: datapath::Family>(family: Family, protocol: u8) {
        let mut datapath = with_ports(2);
        let [first, second] = [(WEB, 2000), (CLIENT, 2001)].map(|(pod, port)| {
            (out(family, pod, 2000, protocol), out(family, NODE_1, port, protocol))
        });
        becomes(&mut datapath, "to_uplink", &first.0, &first.1);
        becomes(&mut datapath, "to_uplink", &second.0, &second.1);
        datapath.lose::<V>(V::NAT_OUT, |_| true);
        datapath.lose::<V>(V::NAT_IN, |answers| answers.destination_port.get() == 2000);
        becomes(&mut datapath, "to_uplink", &second.0, &second.1);
    }
    match family {
        V4 => run::<ip::V4>(family, protocol),
        V6 => run::<ip::V6>(family, protocol),
    }
}

/// Hits do not touch a mapping: as long as its flow is cached, nobody else gets its port.
#[test]
fn a_cached_flow_keeps_its_mappings_port() {
    let mut datapath = with_one_port();
    becomes(&mut datapath, "to_uplink", &out(V4, CLIENT, 40000, 17), &out(V4, NODE_1, 2000, 17));
    datapath.expire_mappings::<ip::V4>();
    let answers = tuple::<ip::V4>(17, (OUTSIDE, 80), (NODE_1, 2000));
    let cached = flow(&answers, tuple(17, (OUTSIDE, 80), (CLIENT, 40000)), 0);
    datapath.learned(answers, cached);
    let other = out(V4, CLIENT, 40001, 17);
    assert_eq!(datapath.run("to_uplink", HERE, &other).0, SHOT);
    datapath.learned(answers, Flow { revisit_at: 1, ..cached });
    becomes(&mut datapath, "to_uplink", &other, &out(V4, NODE_1, 2000, 17));
}

#[test]
fn a_port_is_free_again_when_its_mapping_has_ended() {
    let mut datapath = with_one_port();
    for port in [40000, 40001] {
        let (leaves, left) = (out(V4, CLIENT, port, 17), out(V4, NODE_1, 2000, 17));
        becomes(&mut datapath, "to_uplink", &leaves, &left);
        becomes(
            &mut datapath,
            "from_uplink",
            &back(V4, NODE_1, 2000, 17),
            &back(V4, CLIENT, port, 17),
        );
        datapath.expire_mappings::<ip::V4>();
    }
}

/// What has closed holds its port for a while, since the other side may: only where none is left may others have it.
#[rstest]
fn where_room_has_to_be_made_the_port_of_what_has_closed_stays(#[values(V4, V6)] family: Family) {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = with_ports(2);
        let ends = |from, to, [source, destination]: [u16; 2]| {
            let start = if from == OUTSIDE { eth(from, NODE_1) } else { eth(NODE_1, to) };
            start / packet::ip(family, from, to) / tcp(source, destination).fin().ack()
        };
        let [sent, left] = [CLIENT, NODE_1].map(|from| ends(from, OUTSIDE, [2000, 80]));
        becomes(&mut datapath, "to_uplink", &sent, &left);
        let [comes, arrives] = [NODE_1, CLIENT].map(|to| ends(OUTSIDE, to, [80, 2000]));
        becomes(&mut datapath, "from_uplink", &comes, &arrives);
        datapath.fill_with_ended::<V>(V::NAT_IN);
        let another = out(family, WEB, 2000, 6);
        becomes(&mut datapath, "to_uplink", &another, &out(family, NODE_1, 2001, 6));
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}

/// Answers find one of two pods only, and that one must be the one whose packet left.
#[test]
fn of_two_flows_that_want_an_ended_mappings_port_at_once_one_has_it() {
    let mut datapath = with_one_port();
    let mut held = out(V4, WEB, 50000, 17);
    let wanting = [out(V4, CLIENT, 40000, 17), out(V4, CLIENT, 40001, 17)];
    for round in 0..3000 {
        let (verdict, _) = datapath.run("to_uplink", HERE, &held);
        assert_eq!(verdict, NEXT, "round {round}");
        datapath.expire_mappings::<ip::V4>();
        let verdicts =
            datapath.race("to_uplink", [&wanting[0], &wanting[1]]).map(|(verdict, _)| verdict);
        assert!(
            verdicts == [NEXT, SHOT] || verdicts == [SHOT, NEXT],
            "round {round}: {verdicts:?}"
        );
        datapath.expire_mappings::<ip::V4>();
        held = out(V4, WEB, 50001 + round % 2, 17);
    }
}

#[test]
fn a_non_masquerade_cidr_sees_the_pod() {
    let mut datapath = with_one_port();
    let [a, b, c, _] = OUTSIDE.v4.octets();
    datapath.exempt(24, [a, b, c, 0]);
    becomes(&mut datapath, "to_uplink", &out(V4, CLIENT, 40000, 6), &out(V4, CLIENT, 40000, 6));
}

#[rstest]
fn the_hosts_own_packets_are_not_touched(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let own = out(family, NODE_1, 40000, 6);
    let (verdict, bytes) = datapath.run("to_uplink", 0, &own);
    assert_eq!(verdict, NEXT);
    assert_same(&own.bytes(), &bytes);
}

/// What the host sends by its own NAT, and its own echoes, are as good as sockets of its.
#[rstest]
fn a_port_that_the_hosts_nat_has_is_not_masquerades(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
) {
    let mut datapath = with_one_port();
    let hosts = out(family, NODE_1, 2000, protocol);
    becomes(&mut datapath, "to_uplink", &hosts, &hosts);
    assert_eq!(datapath.run("to_uplink", HERE, &out(family, CLIENT, 40000, protocol)).0, SHOT);
    let answer = back(family, NODE_1, 2000, protocol);
    becomes(&mut datapath, "from_uplink", &answer, &answer);
    assert_eq!(datapath.counted(Counter::NoMapping), 0);
}

/// Before any pod has a privileged port, too.
#[rstest]
fn a_privileged_port_that_the_hosts_nat_has_is_not_masquerades(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let opens =
        |from| eth(NODE_1, OUTSIDE) / packet::ip(family, from, OUTSIDE) / tcp(700, 80).syn();
    becomes(&mut datapath, "to_uplink", &opens(NODE_1), &opens(NODE_1));
    let (verdict, left) = datapath.run("to_uplink", HERE, &opens(CLIENT));
    let port = source_port(family, &left);
    assert!(verdict == NEXT && (600..1024).contains(&port) && port != 700, "{port}");
    let goes_on = out(family, NODE_1, 700, 6);
    becomes(&mut datapath, "to_uplink", &goes_on, &goes_on);
    let answer = back(family, NODE_1, 700, 6);
    becomes(&mut datapath, "from_uplink", &answer, &answer);
}

/// What comes in by one of those is not looked at. (A node may have them where `ip_unprivileged_port_start` lets it.)
#[rstest]
fn a_privileged_port_of_the_hosts_ephemeral_ones_is_no_pods(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    datapath.configure(|config| config.local_ports = PortRange { first: 650, last: 60_999 });
    let (verdict, left) = datapath.run("to_uplink", HERE, &out(family, CLIENT, 700, 6));
    let port = source_port(family, &left);
    assert!(verdict == NEXT && (600..650).contains(&port), "{port}");
    becomes(
        &mut datapath,
        "from_uplink",
        &back(family, NODE_1, port, 6),
        &back(family, CLIENT, 700, 6),
    );
}

fn source_port(family: Family, frame: &[u8]) -> u16 {
    let at = match family {
        V4 => 14 + 20,
        V6 => 14 + 40,
    };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

#[rstest]
fn a_port_that_masquerade_has_is_not_the_hosts_nats(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let leaves = (out(family, CLIENT, 40000, 17), out(family, NODE_1, 2000, 17));
    becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
    assert_eq!(datapath.run("to_uplink", HERE, &leaves.1).0, SHOT);
    assert_eq!(datapath.counted(Counter::TupleInUse), 1);
}

#[rstest]
fn an_identifier_of_the_hosts_own_echo_is_the_hosts(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let leaves = (out(family, CLIENT, 40000, 1), out(family, NODE_1, 2000, 1));
    let answer = (back(family, NODE_1, 2000, 1), back(family, CLIENT, 40000, 1));
    becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
    becomes(&mut datapath, "from_uplink", &answer.0, &answer.1);
    // The host itself asks under the same identifier.
    assert_eq!(datapath.run("to_uplink", 0, &leaves.1).0, NEXT);
    becomes(&mut datapath, "from_uplink", &answer.0, &answer.0);
    assert_eq!(datapath.run("to_uplink", HERE, &leaves.0).0, SHOT, "there is no other identifier");
}

#[rstest]
fn answers_of_a_mapping_that_has_ended_are_the_hosts(#[values(V4, V6)] family: Family) {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = with_one_port();
        let leaves = (out(family, CLIENT, 40000, 17), out(family, NODE_1, 2000, 17));
        becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
        datapath.expire_mappings::<V>();
        let answer = back(family, NODE_1, 2000, 17);
        becomes(&mut datapath, "from_uplink", &answer, &answer);
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}

/// DEL takes the pod's address first, then its mappings: while packets come, nothing must write them again.
#[rstest]
fn a_mapping_of_a_pod_that_is_gone_is_not_healed(#[values(V4, V6)] family: Family) {
    fn run<V: datapath::Family>(family: Family) {
        let leaves = (out(family, CLIENT, 40000, 17), out(family, NODE_1, 2000, 17));
        let answer = back(family, NODE_1, 2000, 17);
        for lost in [V::NAT_OUT, V::NAT_IN] {
            // A search for lost mappings is followed by a pause.
            let mut datapath = with_one_port();
            becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
            datapath.forget_address::<V>(CLIENT);
            datapath.lose::<V>(lost, |_| true);
            becomes(&mut datapath, "from_uplink", &answer, &answer);
            assert_eq!(datapath.halves::<V>(lost).len(), 0, "{lost}");
        }
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}

/// NAT_IN has lost the half of a flow that takes the short way both ways: its port is no less the pod's.
#[rstest]
fn a_port_of_a_cached_flow_is_not_the_hosts_nats(#[values(V4, V6)] family: Family) {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = with_one_port();
        let leaves = (out(family, CLIENT, 40000, 17), out(family, NODE_1, 2000, 17));
        becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
        let answers = tuple::<V>(17, (OUTSIDE, 80), (NODE_1, 2000));
        datapath.learned(answers, flow(&answers, tuple(17, (OUTSIDE, 80), (CLIENT, 40000)), 0));
        datapath.lose::<V>(V::NAT_IN, |_| true);
        assert_eq!(datapath.run("to_uplink", HERE, &leaves.1).0, SHOT);
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}

/// A host on the uplink's link, by an address that is valid there only.
const NEIGHBOUR: Actor = Actor {
    name: "neighbour",
    v4: std::net::Ipv4Addr::new(169, 254, 169, 254),
    v6: std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2),
    mac: OUTSIDE.mac,
};

/// Each family by its own flag, and what a pod says about the answer as well.
#[rstest]
fn link_local_addresses_are_masqueraded_to_where_that_is_wanted(
    #[values(V4, V6)] family: Family,
    #[values(false, true)] is_wanted: bool,
) {
    let (own, other) = match family {
        V4 => (MASQUERADE_LINK_LOCAL4, MASQUERADE_LINK_LOCAL6),
        V6 => (MASQUERADE_LINK_LOCAL6, MASQUERADE_LINK_LOCAL4),
    };
    let mut datapath = with_one_port();
    datapath.configure(|config| config.flags |= if is_wanted { own } else { other });
    let asks = |from, port| {
        eth(NODE_1, OUTSIDE) / packet::ip(family, from, NEIGHBOUR) / udp(port, 80) / payload(b"?")
    };
    let answer = |to, port| {
        eth(OUTSIDE, NODE_1) / packet::ip(family, NEIGHBOUR, to) / udp(80, port) / payload(b"!")
    };
    let refuses = |from, to, port| {
        eth(NODE_1, OUTSIDE)
            / packet::ip(family, from, NEIGHBOUR)
            / packet::port_unreachable(family)
            / packet::quoting(&answer(to, port), 1_000)
    };
    let (seen, port) = if is_wanted { (NODE_1, 2000) } else { (CLIENT, 40000) };
    becomes(&mut datapath, "to_uplink", &asks(CLIENT, 40000), &asks(seen, port));
    becomes(&mut datapath, "from_uplink", &answer(seen, port), &answer(CLIENT, 40000));
    let (said, wanted) = (refuses(CLIENT, CLIENT, 40000), refuses(seen, seen, port));
    becomes(&mut datapath, "to_uplink", &said, &wanted);
    assert_eq!(datapath.counted(Counter::Masqueraded), if is_wanted { 2 } else { 0 });
}

/// As conntrack has it (`nf_conntrack_tcp_packet`): what is found in the middle is a connection once both sides were heard. Else
/// packets that nobody answers would fill the maps for days.
#[rstest]
fn what_one_side_alone_says_is_no_connection_yet(#[values(V4, V6)] family: Family) {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = with_one_port();
        let may_give_way = |datapath: &mut Datapath| {
            [V::NAT_OUT, V::NAT_IN].map(|map| {
                let [(_, half)] = datapath.halves::<V>(map)[..] else { panic!("{map}") };
                may_give_way(&Lifetimes::DEFAULT, 6, Stage::of(half.stage), 0)
            })
        };
        let leaves = (out(family, CLIENT, 40000, 6), out(family, NODE_1, 2000, 6));
        becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
        becomes(&mut datapath, "to_uplink", &leaves.0, &leaves.1);
        assert_eq!(may_give_way(&mut datapath), [true; 2]);
        let answer = (back(family, NODE_1, 2000, 6), back(family, CLIENT, 40000, 6));
        becomes(&mut datapath, "from_uplink", &answer.0, &answer.1);
        assert_eq!(may_give_way(&mut datapath), [false; 2]);
        // A half that is lost and written again is as the other.
        for (map, program, (packet, wanted)) in [
            (V::NAT_IN, "to_uplink", &leaves),
            (V::NAT_OUT, "to_uplink", &leaves),
            (V::NAT_OUT, "from_uplink", &answer),
        ] {
            datapath.lose::<V>(map, |_| true);
            becomes(&mut datapath, program, packet, wanted);
            assert_eq!(may_give_way(&mut datapath), [false; 2], "{map}");
        }
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}
