//! Calls from outside to a pod's own address, whose answers are not masqueraded.

use netplug_common::decide::mapping_life::Stage;
use netplug_common::ip;
use netplug_common::maps::config::{STEERING_ALWAYS, STEERING_LEARN};
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{CLIENT, GATEWAY, NODE_1, OUTSIDE};
use netplug_tests::packet;
use netplug_tests::packet::{Packet, echo, echo_reply, eth, payload, tcp, udp};
use rstest::rstest;

use crate::datapath::{self, Datapath};
use crate::masquerade::{back, becomes, out, with_one_port};

/// A call from OUTSIDE's port 80 to CLIENT's, as it comes in and as the host hands it to the pod.
fn call(family: Family, protocol: u8) -> [Packet; 2] {
    let inner = eth(GATEWAY, CLIENT) / packet::ip(family, OUTSIDE, CLIENT).ttl(63);
    let inner = match protocol {
        6 => inner / tcp(80, 80).syn(),
        17 => inner / udp(80, 80) / payload(b"call"),
        _ => inner / echo(80, 1) / payload(b"call"),
    };
    let outer = eth(OUTSIDE, NODE_1) / packet::ip(family, OUTSIDE, CLIENT);
    let outer = match protocol {
        6 => outer / tcp(80, 80).syn(),
        17 => outer / udp(80, 80) / payload(b"call"),
        _ => outer / echo(80, 1) / payload(b"call"),
    };
    [outer, inner]
}

fn answer(family: Family, protocol: u8) -> Packet {
    let start = eth(NODE_1, OUTSIDE) / packet::ip(family, CLIENT, OUTSIDE);
    match protocol {
        6 => start / tcp(80, 80).syn().ack(),
        17 => start / udp(80, 80) / payload(b"answer"),
        _ => start / echo_reply(80, 1) / payload(b"answer"),
    }
}

/// The datapath after a call has come in, and has been handed to the pod.
fn called<V: datapath::Family>(family: Family, protocol: u8, steering: u32) -> Datapath {
    let mut datapath = with_one_port();
    datapath.configure(|config| config.steering = steering);
    let [comes, arrives] = call(family, protocol);
    becomes(&mut datapath, "from_uplink", &comes, &comes);
    datapath.carry::<V>();
    becomes(&mut datapath, "to_pod", &arrives, &arrives);
    datapath
}

#[rstest]
fn answers_to_a_call_from_outside_are_not_masqueraded(
    #[values(V4, V6)] family: Family,
    #[values(6, 17, 1)] protocol: u8,
    #[values(STEERING_LEARN, STEERING_ALWAYS)] steering: u32,
) {
    fn run<V: datapath::Family>(family: Family, protocol: u8, steering: u32) {
        let mut datapath = called::<V>(family, protocol, steering);
        let answer = answer(family, protocol);
        for lost in [None, Some(V::NAT_OUT), Some(V::NAT_IN)] {
            if let Some(map) = lost {
                datapath.lose::<V>(map, |_| true);
            }
            becomes(&mut datapath, "to_uplink", &answer, &answer);
            assert_eq!(datapath.halves::<V>(V::NAT_OUT).len(), 1, "{lost:?}");
            assert_eq!(datapath.halves::<V>(V::NAT_IN).len(), 1, "{lost:?}");
        }
    }
    match family {
        V4 => run::<ip::V4>(family, protocol, steering),
        V6 => run::<ip::V6>(family, protocol, steering),
    }
}

/// Or a call that pauses for two minutes is answered by another.
#[rstest]
fn a_half_of_a_call_that_is_written_again_lasts_as_long_as_the_other(
    #[values(V4, V6)] family: Family,
) {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = called::<V>(family, 6, STEERING_LEARN);
        let accepts = answer(family, 6);
        becomes(&mut datapath, "to_uplink", &accepts, &accepts);
        let [asks, answers] = [(OUTSIDE, CLIENT), (CLIENT, OUTSIDE)].map(|(from, to)| {
            let start = if from.name == OUTSIDE.name { eth(from, NODE_1) } else { eth(NODE_1, to) };
            start / packet::ip(family, from, to) / tcp(80, 80).ack() / payload(b"data")
        });
        becomes(&mut datapath, "from_uplink", &asks, &asks);
        for lost in [V::NAT_OUT, V::NAT_IN] {
            datapath.lose::<V>(lost, |_| true);
            becomes(&mut datapath, "to_uplink", &answers, &answers);
            for map in [V::NAT_OUT, V::NAT_IN] {
                let [(_, half)] = datapath.halves::<V>(map)[..] else { panic!("{map}") };
                assert_eq!(Stage::of(half.stage), Stage::Established, "{map} of {lost}");
            }
        }
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}

/// It looks the same as it leaves for the pod, but the host will translate what the pod answers, or we will.
#[rstest]
fn a_call_that_was_translated_leaves_answers_to_masquerade(#[values(V4, V6)] family: Family) {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = with_one_port();
        let by_node_port = eth(OUTSIDE, NODE_1)
            / packet::ip(family, OUTSIDE, NODE_1)
            / udp(80, 30_000)
            / payload(b"call");
        becomes(&mut datapath, "from_uplink", &by_node_port, &by_node_port);
        datapath.carry::<V>();
        let [_, arrives] = call(family, 17);
        becomes(&mut datapath, "to_pod", &arrives, &arrives);
        assert_eq!(datapath.halves::<V>(V::NAT_OUT).len(), 0);
        assert_eq!(datapath.halves::<V>(V::NAT_IN).len(), 0);
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}

/// A stranger's packet that the host does not let through must not keep a pod's from being masqueraded.
#[rstest]
fn a_call_that_the_host_drops_changes_nothing(#[values(V4, V6)] family: Family) {
    let mut datapath = with_one_port();
    let call = back(family, CLIENT, 80, 17);
    becomes(&mut datapath, "from_uplink", &call, &call);
    becomes(&mut datapath, "to_uplink", &out(family, CLIENT, 80, 17), &out(family, NODE_1, 80, 17));
}

#[rstest]
fn an_ended_call_from_outside_is_no_reason_not_to_masquerade(#[values(V4, V6)] family: Family) {
    fn run<V: datapath::Family>(family: Family) {
        let mut datapath = called::<V>(family, 17, STEERING_LEARN);
        let leaves = out(family, CLIENT, 80, 17);
        becomes(&mut datapath, "to_uplink", &leaves, &leaves);
        datapath.expire::<V>(V::NAT_OUT);
        datapath.expire::<V>(V::NAT_IN);
        becomes(&mut datapath, "to_uplink", &leaves, &out(family, NODE_1, 80, 17));
    }
    match family {
        V4 => run::<ip::V4>(family),
        V6 => run::<ip::V6>(family),
    }
}

/// As the host has to, where the answers to two calls by one port would be the same.
#[rstest]
fn a_call_whose_sender_the_host_changes_has_its_answers_left_as_they_are(
    #[values(V4, V6)] family: Family,
    #[values(true, false)] is_the_call: bool,
) {
    fn run<V: datapath::Family>(family: Family, is_the_call: bool) {
        let mut datapath = with_one_port();
        let [comes, _] = call(family, 17);
        becomes(&mut datapath, "from_uplink", &comes, &comes);
        datapath.carry::<V>();
        let arrives = eth(GATEWAY, CLIENT) / packet::ip(family, OUTSIDE, CLIENT).ttl(63);
        let data = if is_the_call { b"call" } else { b"also" };
        let arrives = arrives / udp(1_080, 80) / payload(data);
        becomes(&mut datapath, "to_pod", &arrives, &arrives);
        let (answer, masqueraded) = (out(family, CLIENT, 80, 17), out(family, NODE_1, 80, 17));
        let wanted = if is_the_call { &answer } else { &masqueraded };
        becomes(&mut datapath, "to_uplink", &answer, wanted);
    }
    match family {
        V4 => run::<ip::V4>(family, is_the_call),
        V6 => run::<ip::V6>(family, is_the_call),
    }
}
