//! The short way: whole packets, checksums computed from scratch by the test.

use netplug_common::counter::Counter;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::config::STEERING_DIRECT;
use netplug_common::maps::flow::{
    ALWAYS_DUE, ANSWERS, CLOSED, DIRECT, Flow, SAME_BRIDGE, UNTOUCHED,
};
use netplug_common::tuple::{TCP, UDP};
use netplug_tests::cast::{CLIENT, GATEWAY, SERVICE, WEB};
use netplug_tests::packet::{Packet, echo, eth, ip, payload, tcp, udp};

use crate::datapath::{Datapath, EPOCH, Family, HERE, NEXT, REDIRECT, THERE, flow, tuple};

pub fn of<V: Family>() -> netplug_tests::cast::Family {
    if V::HEADER_LENGTH == 20 {
        netplug_tests::cast::Family::V4
    } else {
        netplug_tests::cast::Family::V6
    }
}

pub fn both(test: (fn(), fn())) {
    test.0();
    test.1();
}

fn data<V: Family>() -> Packet {
    eth(CLIENT, WEB) / ip(of::<V>(), CLIENT, WEB) / tcp(40000, 80).ack() / payload(b"hello")
}

#[test]
fn a_learned_flow_on_one_bridge_goes_as_it_is() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        let tuple = tuple::<V>(TCP, (CLIENT, 40000), (WEB, 80));
        datapath.learned(tuple, flow(&tuple, tuple, UNTOUCHED | SAME_BRIDGE));
        datapath.enters(&data::<V>(), REDIRECT, &data::<V>());
        assert_eq!(datapath.counted(Counter::Hit), 1);
        assert_eq!(datapath.counted(Counter::Visit) + datapath.counted(Counter::Aside), 0);
    }
    both((run::<V4>, run::<V6>));
}

#[test]
fn a_translated_flow_is_rewritten_whole() {
    fn run<V: Family>(protocol: u8) {
        let mut datapath = Datapath::new();
        let entered = tuple::<V>(protocol, (CLIENT, 40000), (SERVICE, 80));
        let left = tuple::<V>(protocol, (CLIENT, 40000), (WEB, 8080));
        datapath.learned(entered, flow(&entered, left, 0));
        let packet = |to, port, hops, from_mac, to_mac| {
            let start = eth(from_mac, to_mac) / ip(of::<V>(), CLIENT, to).ttl(hops);
            if protocol == TCP {
                start / tcp(40000, port).ack() / payload(b"hello!")
            } else {
                start / udp(40000, port) / payload(b"hello!")
            }
        };
        datapath.enters(
            &packet(SERVICE, 80, 64, CLIENT, GATEWAY),
            REDIRECT,
            &packet(WEB, 8080, 63, GATEWAY, WEB),
        );
    }
    for protocol in [TCP, UDP] {
        run::<V4>(protocol);
        run::<V6>(protocol);
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    let mut datapath = Datapath::new();
    let entered = tuple::<V4>(UDP, (CLIENT, 40000), (SERVICE, 53));
    datapath.learned(entered, flow(&entered, tuple(UDP, (CLIENT, 40000), (WEB, 5353)), 0));
    let packet = |to, port, hops, from_mac, to_mac| {
        eth(from_mac, to_mac)
            / ip(of::<V4>(), CLIENT, to).ttl(hops)
            / udp(40000, port).no_checksum()
            / payload(b"hello")
    };
    datapath.enters(
        &packet(SERVICE, 53, 64, CLIENT, GATEWAY),
        REDIRECT,
        &packet(WEB, 5353, 63, GATEWAY, WEB),
    );
}

/// A packet of a flow whose entry is changed so visits.
#[track_caller]
fn is_not_followed<V: Family>(change: impl FnOnce(Flow<V>) -> Flow<V>) {
    let tuple = tuple::<V>(TCP, (CLIENT, 40000), (WEB, 80));
    let mut datapath = Datapath::new();
    datapath.learned(tuple, change(flow(&tuple, tuple, UNTOUCHED | SAME_BRIDGE)));
    let steered = eth(CLIENT, GATEWAY)
        / ip(of::<V>(), CLIENT, WEB)
        / tcp(40000, 80).ack()
        / payload(b"hello");
    datapath.enters(&data::<V>(), NEXT, &steered);
    assert_eq!(datapath.counted(Counter::Hit), 0);
    assert_eq!(datapath.counted(Counter::Visit), 1);
}

/// Of whatever the cache does not hold, and of what has more than it rewrites.
#[test]
fn a_miss_visits() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        for protocol in [TCP, UDP] {
            let known = tuple::<V>(protocol, (CLIENT, 40000), (WEB, 80));
            datapath.learned(known, flow(&known, known, UNTOUCHED | SAME_BRIDGE));
        }
        let packets = |to| {
            let header = || eth(CLIENT, to) / ip(of::<V>(), CLIENT, WEB);
            let first = eth(CLIENT, to) / ip(of::<V>(), CLIENT, WEB).fragment(0, true);
            [
                header() / tcp(40001, 80).ack() / payload(b"hello"),
                header() / udp(40000, 81) / payload(b"hello"),
                header() / echo(40000, 80) / payload(b"hello"),
                first / udp(40000, 80) / payload(b"a fragment, the first"),
            ]
        };
        for (packet, steered) in packets(WEB).iter().zip(&packets(GATEWAY)) {
            datapath.enters(packet, NEXT, steered);
        }
        assert_eq!(datapath.counted(Counter::Hit), 0);
    }
    both((run::<V4>, run::<V6>));
}

#[test]
fn a_flow_that_is_due_asks_the_host() {
    both((
        || is_not_followed::<V4>(|flow| Flow { revisit_at: 1, ..flow }),
        || is_not_followed::<V6>(|flow| Flow { revisit_at: 1, ..flow }),
    ));
}

#[test]
fn a_flow_of_another_epoch_asks_the_host() {
    both((
        || is_not_followed::<V4>(|flow| Flow { epoch: EPOCH - 1, ..flow }),
        || is_not_followed::<V6>(|flow| Flow { epoch: EPOCH - 1, ..flow }),
    ));
}

#[test]
fn a_flow_is_bound_to_the_interface_that_it_entered_by() {
    both((
        || is_not_followed::<V4>(|flow| Flow { entered_by: 4242, ..flow }),
        || is_not_followed::<V6>(|flow| Flow { entered_by: 4242, ..flow }),
    ));
}

#[test]
fn an_element_that_is_another_flows_by_now_is_not_followed() {
    both((
        || is_not_followed::<V4>(|flow| Flow { tag: !flow.tag, ..flow }),
        || is_not_followed::<V6>(|flow| Flow { tag: !flow.tag, ..flow }),
    ));
}

#[test]
fn a_packet_that_is_too_long_for_the_device_visits() {
    both((
        || is_not_followed::<V4>(|flow| Flow { mtu: 40, ..flow }),
        || is_not_followed::<V6>(|flow| Flow { mtu: 40, ..flow }),
    ));
}

/// Answers may come by any interface of a pod's, and by none of another's.
#[test]
fn with_direct_another_pods_interface_is_guarded() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        datapath.configure(|config| config.steering = STEERING_DIRECT);
        let sent = tuple::<V>(TCP, (WEB, 80), (CLIENT, 40000));
        let webs = Flow {
            entered_by: THERE,
            leaves_by: HERE,
            destination_mac: CLIENT.mac,
            ..flow(&sent, sent, UNTOUCHED | DIRECT)
        };
        datapath.learned(sent, webs);
        let forged = eth(CLIENT, GATEWAY)
            / ip(of::<V>(), WEB, CLIENT)
            / tcp(80, 40000).ack()
            / payload(b"forged");
        datapath.drops(&forged, Counter::SourceAddress);
    }
    both((run::<V4>, run::<V6>));
}

/// A host that has forgotten the flow would take the answer for a question.
#[test]
fn an_answer_that_is_due_asks_behind_its_question() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        // So long that no answer has waited too long.
        datapath.configure(|config| config.revisit_jiffies = 1 << 40);
        let entered = tuple::<V>(UDP, (CLIENT, 8080), (WEB, 40000));
        let left = tuple::<V>(UDP, (SERVICE, 80), (WEB, 40000));
        let due = Flow { revisit_at: 1, ..flow(&entered, left, ANSWERS) };
        let asks = left.reversed();
        let question = Flow { entered_by: THERE, ..flow(&asks, entered.reversed(), 0) };
        let answer = eth(CLIENT, GATEWAY)
            / ip(of::<V>(), CLIENT, WEB)
            / udp(8080, 40000)
            / payload(b"an answer");
        datapath.learned(entered, due);
        assert_eq!(datapath.run("from_pod", HERE, &answer).0, NEXT, "there is no question");

        datapath.learned(asks, question);
        assert_eq!(datapath.run("from_pod", HERE, &answer).0, REDIRECT);
        let told = datapath.cached(&asks).unwrap();
        assert!(told.revisit_at < question.revisit_at, "it is to ask");
        assert_eq!(datapath.run("from_pod", HERE, &answer).0, REDIRECT, "it has not asked yet");
        assert_eq!(datapath.cached(&asks), Some(told), "it is told once");

        datapath.learned(asks, question);
        assert_eq!(datapath.run("from_pod", HERE, &answer).0, NEXT, "it has asked");

        datapath.configure(|config| config.revisit_jiffies = 4);
        datapath.learned(entered, due);
        assert_eq!(datapath.run("from_pod", HERE, &answer).0, NEXT, "it has waited too long");
    }
    both((run::<V4>, run::<V6>));
}

#[test]
fn a_packet_with_its_last_hop_visits() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        let entered = tuple::<V>(TCP, (CLIENT, 40000), (SERVICE, 80));
        datapath.learned(entered, flow(&entered, tuple(TCP, (CLIENT, 40000), (WEB, 8080)), 0));
        let last =
            eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, SERVICE).ttl(1) / tcp(40000, 80).ack();
        datapath.enters(&last, NEXT, &last);
    }
    both((run::<V4>, run::<V6>));
}

#[test]
fn openings_and_closings_visit_and_openings_and_resets_void() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        let tuple = tuple::<V>(TCP, (CLIENT, 40000), (WEB, 80));
        datapath.learned(tuple, flow(&tuple, tuple, UNTOUCHED | SAME_BRIDGE));
        let to = |segment| eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, WEB) / segment;
        let answers = tuple.reversed();
        datapath.learned(answers, flow(&answers, answers, UNTOUCHED | SAME_BRIDGE));
        let fin = tcp(40000, 80).fin().ack();
        datapath.enters(&to(fin), NEXT, &to(fin));
        assert!(datapath.knows(&tuple) && datapath.knows(&answers));
        // Both sides may go on, if it is not heeded.
        datapath.enters(&to(tcp(40000, 80).rst()), NEXT, &to(tcp(40000, 80).rst()));
        assert!(!datapath.knows(&tuple) && !datapath.knows(&answers));
        datapath.learned(tuple, flow(&tuple, tuple, UNTOUCHED | SAME_BRIDGE));
        datapath.enters(&to(tcp(40000, 80).syn()), NEXT, &to(tcp(40000, 80).syn()));
        assert!(!datapath.knows(&tuple));
    }
    both((run::<V4>, run::<V6>));
}

/// The host is to see a connection end as it does, what acknowledges the other side's FIN too; the other way goes on.
#[test]
fn what_goes_the_way_of_a_fin_visits() {
    fn run<V: Family>(is_due: bool) {
        let mut datapath = Datapath::new();
        let sent = tuple::<V>(TCP, (CLIENT, 40000), (WEB, 80));
        let due = if is_due { 1 } else { u64::MAX };
        let learned = flow(&sent, sent, UNTOUCHED | SAME_BRIDGE);
        datapath.learned(sent, Flow { revisit_at: due, ..learned });
        let answers = sent.reversed();
        let other = Flow { entered_by: THERE, ..flow(&answers, answers, UNTOUCHED | SAME_BRIDGE) };
        datapath.learned(answers, other);
        let fin = eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, WEB) / tcp(40000, 80).fin().ack();
        datapath.enters(&fin, NEXT, &fin);
        let found = datapath.cached(&sent).unwrap();
        assert_eq!((found.revisit_at, found.flags), (ALWAYS_DUE, learned.flags | CLOSED));
        assert_eq!(datapath.cached(&answers), Some(other));
        let acknowledges = eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, WEB) / tcp(40000, 80).ack();
        datapath.enters(&acknowledges, NEXT, &acknowledges);
        assert_eq!(datapath.counted(Counter::Hit), 0);
    }
    for is_due in [false, true] {
        run::<V4>(is_due);
        run::<V6>(is_due);
    }
}

#[test]
fn another_pods_closing_leaves_a_flow_as_it_is() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        let sent = tuple::<V>(TCP, (CLIENT, 40000), (WEB, 80));
        let others = Flow { entered_by: THERE, ..flow(&sent, sent, UNTOUCHED | SAME_BRIDGE) };
        datapath.learned(sent, others);
        for end in [tcp(40000, 80).fin().ack(), tcp(40000, 80).rst()] {
            let end = eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, WEB) / end;
            datapath.enters(&end, NEXT, &end);
            assert_eq!(datapath.cached(&sent), Some(others));
        }
    }
    both((run::<V4>, run::<V6>));
}
