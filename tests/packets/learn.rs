//! What is learned of a packet that visited and leaves again, and what is not.

use netplug_common::counter::Counter;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::config::{LEARN_TCP, STEERING_ALWAYS};
use netplug_common::maps::flow::{ALWAYS_DUE, ANSWERS, Flow, NEW, SAME_BRIDGE, UNTOUCHED};
use netplug_common::tuple::{TCP, Tuple, UDP};
use netplug_tests::cast::{Actor, CLIENT, GATEWAY, NODE_1, OUTSIDE, SERVICE, WEB};
use netplug_tests::packet::{Ip, Packet, eth, ip, payload, tcp, udp};

use crate::datapath::{Datapath, EPOCH, Family, HERE, NEXT, THERE, flow, tuple};
use crate::follow::{both, of};

const DATA: &[u8] = b"some data";

fn packet<V: Family>(protocol: u8, to: Actor, port: u16, hops: u8) -> Packet {
    let start = eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, to).ttl(hops);
    match protocol {
        TCP => start / tcp(40000, port).ack() / payload(DATA),
        _ => start / udp(40000, port) / payload(DATA),
    }
}

fn asks<V: Family>(protocol: u8, to: Actor, port: u16) -> Tuple<V> {
    tuple(protocol, (CLIENT, 40000), (to, port))
}

/// Test runs take place on one interface: what enters there leaves there, for its pod.
fn learned_here<V: Family>(entered: &Tuple<V>, left: Tuple<V>, flags: u32) -> Flow<V> {
    let flags = flags | if entered.protocol == UDP { NEW } else { 0 };
    Flow { leaves_by: HERE, destination_mac: CLIENT.mac, mtu: 65_536, ..flow(entered, left, flags) }
}

#[test]
fn an_untouched_flow_is_learned_as_it_is() {
    fn run<V: Family>(protocol: u8) {
        let mut datapath = Datapath::with_web_here();
        datapath.visits::<V>(&packet::<V>(protocol, WEB, 80, 64));
        let leaves = packet::<V>(protocol, WEB, 80, 63);
        assert_eq!(datapath.run("to_pod", HERE, &leaves).0, NEXT);
        let entered = asks::<V>(protocol, WEB, 80);
        let wanted = learned_here(&entered, entered, UNTOUCHED | SAME_BRIDGE);
        let revisit_at = datapath.cached(&entered).map_or(0, |flow| flow.revisit_at);
        assert_eq!(datapath.cached(&entered), Some(Flow { revisit_at, ..wanted }));
        assert!((1..u64::MAX).contains(&revisit_at), "{revisit_at}");
        assert_eq!(datapath.counted(Counter::Learned), 1);
    }
    for protocol in [TCP, UDP] {
        run::<V4>(protocol);
        run::<V6>(protocol);
    }
}

#[test]
fn a_translated_flow_is_learned_with_its_translation() {
    fn run<V: Family>(protocol: u8) {
        let mut datapath = Datapath::with_web_here();
        datapath.visits::<V>(&packet::<V>(protocol, SERVICE, 80, 64));
        datapath.run("to_pod", HERE, &packet::<V>(protocol, WEB, 8080, 63));
        let entered = asks::<V>(protocol, SERVICE, 80);
        let wanted = learned_here(&entered, asks(protocol, WEB, 8080), 0);
        let found = datapath.cached(&entered).unwrap();
        assert_eq!(found, Flow { revisit_at: found.revisit_at, ..wanted });
        assert!(!datapath.knows(&asks::<V>(protocol, WEB, 8080)), "as it entered");
    }
    for protocol in [TCP, UDP] {
        run::<V4>(protocol);
        run::<V6>(protocol);
    }
}

/// What comes back may be led otherwise, or not at all.
#[test]
fn each_direction_is_learned_by_itself() {
    fn run<V: Family>() {
        let mut datapath = Datapath::with_web_here();
        datapath.visits::<V>(&packet::<V>(TCP, SERVICE, 80, 64));
        datapath.run("to_pod", HERE, &packet::<V>(TCP, WEB, 8080, 63));
        assert!(datapath.knows(&asks::<V>(TCP, SERVICE, 80)));
        for answers in
            [asks::<V>(TCP, WEB, 8080).reversed(), asks::<V>(TCP, SERVICE, 80).reversed()]
        {
            assert!(!datapath.knows(&answers));
        }
    }
    both((run::<V4>, run::<V6>));
}

/// Not only the first packet behind a FIN: what acknowledges the other side's may be another.
#[test]
fn what_is_closing_asks_each_time() {
    fn run<V: Family>() {
        for (revisit_at, is_refreshed) in [(1, true), (ALWAYS_DUE, false)] {
            let mut datapath = Datapath::with_web_here();
            let entered = asks::<V>(TCP, WEB, 80);
            datapath.learned(
                entered,
                Flow { revisit_at, ..learned_here(&entered, entered, UNTOUCHED | SAME_BRIDGE) },
            );
            datapath.visits::<V>(&packet::<V>(TCP, WEB, 80, 64));
            datapath.run("to_pod", HERE, &packet::<V>(TCP, WEB, 80, 63));
            let found = datapath.cached(&entered).unwrap();
            assert_eq!(found.revisit_at != revisit_at, is_refreshed);
        }
    }
    both((run::<V4>, run::<V6>));
}

/// The host has forgotten the flow: what the datagram answers is to tell it all again.
#[test]
fn where_what_was_translated_passes_untouched_its_question_asks() {
    fn run<V: Family>() {
        let mut datapath = Datapath::with_web_here();
        let answer = asks::<V>(UDP, WEB, 80);
        let left = tuple::<V>(UDP, (SERVICE, 443), (WEB, 80));
        let question = left.reversed();
        datapath.learned(answer, Flow { revisit_at: 1, ..flow(&answer, left, ANSWERS) });
        datapath.learned(question, flow(&question, answer.reversed(), 0));
        datapath.visits::<V>(&packet::<V>(UDP, WEB, 80, 64));
        datapath.run("to_pod", HERE, &packet::<V>(UDP, WEB, 80, 63));
        assert!(datapath.cached(&answer).is_some_and(|flow| flow.flags & UNTOUCHED != 0));
        assert!(!datapath.knows(&question));
    }
    both((run::<V4>, run::<V6>));
}

/// Whose answers wait for it. Both ways of a flow that has an address of the node's look the same: who calls is seen first.
#[test]
fn answers_of_datagrams_that_the_host_translates_are_told_apart() {
    fn run<V: Family>() {
        // What CLIENT sends leaves as a service's, to one's pod, and as the node's, which was seen first or behind its answers.
        for (to, (source, source_port), port, back, flags) in [
            (WEB, (SERVICE, 443), 80, None, ANSWERS),
            (SERVICE, (CLIENT, 40000), 8080, Some(0), 0),
            (WEB, (NODE_1, 443), 80, None, 0),
            (WEB, (NODE_1, 443), 80, Some(0), ANSWERS),
            (WEB, (NODE_1, 443), 80, Some(ANSWERS), 0),
        ] {
            let mut datapath = Datapath::with_web_here();
            let entered = asks::<V>(UDP, to, 80);
            let left = tuple::<V>(UDP, (source, source_port), (WEB, port));
            if let Some(flags) = back {
                let back = left.reversed();
                datapath.learned(back, flow(&back, entered.reversed(), flags));
            }
            datapath.visits::<V>(&packet::<V>(UDP, to, 80, 64));
            let header = eth(GATEWAY, CLIENT) / ip(of::<V>(), source, WEB).ttl(63);
            datapath.run("to_pod", HERE, &(header / udp(source_port, port) / payload(DATA)));
            assert_eq!(datapath.cached(&entered).map(|flow| flow.flags), Some(flags | NEW));
        }
    }
    both((run::<V4>, run::<V6>));
}

/// A packet that leaves under the hash of a visit is not learned from.
#[track_caller]
fn is_not_learned_from<V: Family>(datapath: &mut Datapath, why: &str, leaves: &Packet) {
    let entered = datapath.visit::<V>().entered;
    assert_eq!(datapath.run("to_pod", HERE, leaves).0, NEXT, "{why}");
    assert!(!datapath.knows(&entered), "{why}");
    assert_eq!(datapath.counted(Counter::Learned), 0, "{why}");
}

/// Tunnels and helpers carry a packet's hash to packets of their own, and two tuples may share one.
#[test]
fn only_the_very_packet_that_visited_is_learned_from() {
    fn run<V: Family>() {
        let header = |ip: Ip| eth(GATEWAY, CLIENT) / ip;
        let plain = ip(of::<V>(), CLIENT, WEB).ttl(63);
        let segment = tcp(40000, 80).ack();
        let mut others = vec![
            ("of another length", header(plain) / segment / payload(b"some more data")),
            (
                "another stretch of the stream",
                header(plain) / segment.sequence(1_001) / payload(DATA),
            ),
            (
                "another acknowledgement",
                header(plain) / segment.acknowledges(2_001) / payload(DATA),
            ),
            ("marked by the host", header(plain.service(0xb8)) / segment / payload(DATA)),
            // Twelve octets less of header, and as many more of data: all else of TCP's is the same length.
            (
                "of another protocol",
                header(plain) / udp(40000, 80) / payload(b"some data123456789012"),
            ),
        ];
        if V::HEADER_LENGTH == 20 {
            others.push((
                "another identification",
                header(plain.id(0x1234)) / segment / payload(DATA),
            ));
        }
        for (why, other) in others {
            let mut datapath = Datapath::with_web_here();
            datapath.visits::<V>(&packet::<V>(TCP, WEB, 80, 64));
            is_not_learned_from::<V>(&mut datapath, why, &other);
            assert_eq!(datapath.counted(Counter::NotIdentical), 1, "{why}");
        }
        for (why, data) in
            [("other first octets", &b"come data"[..]), ("other octets behind them", b"some tata")]
        {
            let mut datapath = Datapath::with_web_here();
            datapath.visits::<V>(&packet::<V>(UDP, WEB, 80, 64));
            let other = header(plain) / udp(40000, 80) / payload(data);
            is_not_learned_from::<V>(&mut datapath, why, &other);
            assert_eq!(datapath.counted(Counter::NotIdentical), 1, "{why}");
        }
    }
    both((run::<V4>, run::<V6>));
}

#[test]
fn openings_and_closings_that_leave_are_not_learned_from() {
    fn run<V: Family>() {
        for segment in
            [tcp(40000, 80).syn(), tcp(40000, 80).syn().ack(), tcp(40000, 80).fin().ack()]
        {
            let mut datapath = Datapath::with_web_here();
            datapath.visits::<V>(&packet::<V>(TCP, WEB, 80, 64));
            let leaves =
                eth(GATEWAY, CLIENT) / ip(of::<V>(), CLIENT, WEB).ttl(63) / segment / payload(DATA);
            is_not_learned_from::<V>(&mut datapath, "opening or closing", &leaves);
        }
    }
    both((run::<V4>, run::<V6>));
}

/// A rule was added and the cache flushed while the packet was in the host's hands: it may have passed before the rule.
#[test]
fn what_the_host_decided_in_an_epoch_that_has_ended_is_not_learned() {
    fn run<V: Family>() {
        let mut datapath = Datapath::with_web_here();
        datapath.visits::<V>(&packet::<V>(TCP, WEB, 80, 64));
        datapath.configure(|config| config.epoch = EPOCH + 1);
        let leaves = packet::<V>(TCP, WEB, 80, 63);
        is_not_learned_from::<V>(&mut datapath, "a flush", &leaves);
        datapath.configure(|config| config.epoch = EPOCH);
        datapath.run("to_pod", HERE, &leaves);
        assert_eq!(datapath.counted(Counter::Learned), 1, "all but the epoch was right");
    }
    both((run::<V4>, run::<V6>));
}

/// A pod was deleted while its packet was in the host's hands: its interface's number may be another pod's next.
#[test]
fn what_entered_by_an_interface_that_is_gone_is_not_learned() {
    fn run<V: Family>() {
        let mut datapath = Datapath::with_web_here();
        datapath.visits::<V>(&packet::<V>(TCP, WEB, 80, 64));
        datapath.change_visit::<V>(|visit| visit.entered_by = THERE + 1);
        is_not_learned_from::<V>(&mut datapath, "a DEL", &packet::<V>(TCP, WEB, 80, 63));
        datapath.change_visit::<V>(|visit| visit.entered_by = THERE);
        datapath.run("to_pod", HERE, &packet::<V>(TCP, WEB, 80, 63));
        assert_eq!(datapath.counted(Counter::Learned), 1, "all but the interface was right");
    }
    both((run::<V4>, run::<V6>));
}

/// A bridge floods what it does not know, and others mirror: a copy may leave by any port.
#[test]
fn what_leaves_for_another_than_its_destination_is_not_learned() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        datapath.visits::<V>(&packet::<V>(UDP, WEB, 80, 64));
        let leaves = packet::<V>(UDP, WEB, 80, 63);
        is_not_learned_from::<V>(&mut datapath, "WEB is elsewhere", &leaves);
    }
    both((run::<V4>, run::<V6>));
}

/// Port reuse: the host gave a service's client the tuple that another flow had before.
#[test]
fn a_translation_voids_what_an_older_flow_left_of_its_tuple_and_its_answers() {
    fn run<V: Family>() {
        let (entered, left) = (asks::<V>(UDP, SERVICE, 80), asks::<V>(UDP, WEB, 8080));
        let (answers, back) = (left.reversed(), entered.reversed());
        let elsewhere = asks::<V>(UDP, SERVICE, 81).reversed();
        let direct = (left, left, UNTOUCHED);
        for (cached, is_known, are_answers_known) in [
            (&[direct, (answers, answers, UNTOUCHED)][..], false, false),
            (&[(answers, answers, UNTOUCHED)], false, false),
            // Another service's of the same pod.
            (&[(answers, elsewhere, 0)], false, false),
            (&[(left, left, 0), (answers, back, 0)], true, true),
        ] {
            let mut datapath = Datapath::with_web_here();
            for (tuple, left, flags) in cached {
                datapath.learned(*tuple, flow(tuple, *left, *flags));
            }
            datapath.visits::<V>(&packet::<V>(UDP, SERVICE, 80, 64));
            datapath.run("to_pod", HERE, &packet::<V>(UDP, WEB, 8080, 63));
            assert!(datapath.knows(&entered));
            assert_eq!(datapath.knows(&left), is_known);
            assert_eq!(datapath.knows(&answers), are_answers_known);
        }
    }
    both((run::<V4>, run::<V6>));
}

#[test]
fn what_must_not_be_learned_is_not_even_noted() {
    fn run<V: Family>() {
        let data = |protocol| packet::<V>(protocol, WEB, 80, 64);
        let mut datapath = Datapath::with_web_here();
        datapath.configure(|config| config.flags &= !LEARN_TCP);
        datapath.enters(&data(TCP), NEXT, &data(TCP));
        assert_eq!(datapath.counted(Counter::Visit), 0, "conntrack would take it for invalid");
        datapath.enters(&data(UDP), NEXT, &data(UDP));
        assert_eq!(datapath.counted(Counter::Visit), 1);
        let mut datapath = Datapath::with_web_here();
        datapath.configure(|config| config.steering = STEERING_ALWAYS);
        for protocol in [TCP, UDP] {
            datapath.enters(&data(protocol), NEXT, &data(protocol));
        }
        assert_eq!(datapath.counted(Counter::Visit), 0);
        assert_eq!(datapath.counted(Counter::Aside), 2);
    }
    both((run::<V4>, run::<V6>));
}

/// A known flow that comes again is given another term in place: an update of its key could evict another flow.
#[test]
fn a_revisit_gives_a_flow_another_term() {
    fn run<V: Family>() {
        let mut datapath = Datapath::with_web_here();
        let entered = asks::<V>(UDP, WEB, 80);
        let due =
            Flow { revisit_at: 1, ..learned_here(&entered, entered, UNTOUCHED | SAME_BRIDGE) };
        datapath.learned(entered, due);
        datapath.visits::<V>(&packet::<V>(UDP, WEB, 80, 64));
        datapath.run("to_pod", HERE, &packet::<V>(UDP, WEB, 80, 63));
        let found = datapath.cached(&entered).unwrap();
        assert!(found.revisit_at > 1);
        assert_eq!(found, Flow { revisit_at: found.revisit_at, ..due });
        let through = packet::<V>(UDP, WEB, 80, 64);
        assert_eq!(datapath.run("from_pod", HERE, &through).0, crate::datapath::REDIRECT);
    }
    both((run::<V4>, run::<V6>));
}

/// A call from outside to a pod's own address is noted for masquerade's sake, and learned from only where others are.
#[test]
fn a_call_from_outside_is_not_learned_where_tcp_is_not() {
    fn run<V: Family>() {
        for learns in [true, false] {
            let mut datapath = Datapath::with_web_here();
            if !learns {
                datapath.configure(|config| config.flags &= !LEARN_TCP);
            }
            let data = |hops| {
                eth(OUTSIDE, NODE_1)
                    / ip(of::<V>(), OUTSIDE, WEB).ttl(hops)
                    / tcp(40_000, 80).ack()
                    / payload(DATA)
            };
            assert_eq!(datapath.run("from_uplink", HERE, &data(64)).0, NEXT);
            datapath.carry::<V>();
            datapath.run("to_pod", HERE, &data(63));
            assert_eq!(datapath.counted(Counter::Learned), u64::from(learns));
        }
    }
    both((run::<V4>, run::<V6>));
}

/// A host that sets hops as it likes is to set each packet's. Bridged, as br_netfilter has it, a packet takes none.
#[test]
fn what_has_neither_one_hop_less_nor_all_is_not_learned() {
    fn run<V: Family>() {
        for (hops, learned) in [(63, 1), (64, 1), (65, 0), (62, 0), (200, 0)] {
            let mut datapath = Datapath::with_web_here();
            datapath.visits::<V>(&packet::<V>(UDP, WEB, 80, 64));
            datapath.run("to_pod", HERE, &packet::<V>(UDP, WEB, 80, hops));
            assert_eq!(datapath.counted(Counter::Learned), learned, "{hops}");
        }
    }
    both((run::<V4>, run::<V6>));
}
