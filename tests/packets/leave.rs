//! What leaves for a pod: nothing is changed, and only what visited is learned from.

use netplug_common::counter::Counter;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::config::STEERING_DIRECT;
use netplug_common::maps::flow::{CLOSED, DIRECT, Flow, UNTOUCHED};
use netplug_common::tuple::TCP;
use netplug_tests::cast::{CLIENT, GATEWAY, WEB};
use netplug_tests::packet::{assert_same, eth, ip, payload, tcp};

use crate::datapath::{Datapath, Family, HERE, NEXT, REDIRECT, SHOT, THERE, flow, tuple};
use crate::follow::{both, of};

#[test]
fn a_packet_that_did_not_visit_is_not_learned_from() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        let packet = eth(GATEWAY, CLIENT)
            / ip(of::<V>(), WEB, CLIENT)
            / tcp(80, 40000).ack()
            / payload(b"answer");
        for received_by in [0, THERE] {
            let (verdict, out) = datapath.run("to_pod", received_by, &packet);
            assert_eq!(verdict, NEXT);
            assert_same(&packet.bytes(), &out);
        }
        assert_eq!(datapath.counted(Counter::Left), 1, "the host's own packets do not leave");
        assert_eq!(datapath.counted(Counter::Learned), 0);
    }
    both((run::<V4>, run::<V6>));
}

/// The host knows nothing of direct connections, and may give a service's client the tuple of one.
#[test]
fn with_direct_a_live_connections_tuple_is_not_given_to_another() {
    fn run<V: Family>() {
        let mut datapath = Datapath::new();
        datapath.configure(|config| config.steering = STEERING_DIRECT);
        let opens = eth(GATEWAY, CLIENT) / ip(of::<V>(), WEB, CLIENT) / tcp(40000, 80).syn();
        let entered = tuple::<V>(TCP, (WEB, 40000), (CLIENT, 80));
        // Whichever direction is left of it, if the cache has lost one.
        for side in [entered, entered.reversed()] {
            let live = flow(&side, side, UNTOUCHED | DIRECT);
            let closed = Flow { flags: live.flags | CLOSED, ..live };
            let silent = Flow { revisit_at: 1, ..live };
            for (direct, verdict) in [(live, SHOT), (closed, NEXT), (silent, NEXT)] {
                datapath.learned(side, direct);
                assert_eq!(datapath.run("to_pod", HERE, &opens).0, verdict);
                let is_direct = |flow: Flow<V>| flow.flags & DIRECT != 0;
                assert_eq!(datapath.cached(&side).is_some_and(is_direct), verdict == SHOT);
            }
            // From then on no direct one gets it.
            let held = datapath.cached(&entered.reversed()).expect("the host's is known");
            assert_eq!((held.flags, held.entered_by, held.leaves_by), (0, 0, THERE));
        }
        assert_eq!(datapath.counted(Counter::TupleInUse), 2);
    }
    both((run::<V4>, run::<V6>));
}

#[test]
fn with_direct_a_reset_closes_both_directions_and_a_fin_its_own() {
    fn run<V: Family>() {
        for (segment, closed) in
            [(tcp(40000, 80).rst(), [true, true]), (tcp(40000, 80).fin().ack(), [true, false])]
        {
            let mut datapath = Datapath::new();
            datapath.configure(|config| config.steering = STEERING_DIRECT);
            let entered = tuple::<V>(TCP, (CLIENT, 40000), (WEB, 80));
            let sides = [entered, entered.reversed()];
            for side in sides {
                datapath.learned(side, flow(&side, side, UNTOUCHED | DIRECT));
            }
            let packet = eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, WEB) / segment;
            assert_eq!(datapath.run("from_pod", HERE, &packet).0, REDIRECT);
            let is_closed = |flow: Flow<V>| flow.flags & CLOSED != 0;
            assert_eq!(sides.map(|side| datapath.cached(&side).is_some_and(is_closed)), closed);
        }
    }
    both((run::<V4>, run::<V6>));
}

/// One port for a service and for the pod behind it: the host has given the answers' tuple to the service's connection, and
/// must choose another port for this one.
#[test]
fn with_direct_a_tuple_that_the_host_has_given_is_left_to_it() {
    fn run<V: Family>() {
        let opens = eth(CLIENT, GATEWAY) / ip(of::<V>(), CLIENT, WEB) / tcp(40000, 80).syn();
        let tuple = tuple::<V>(TCP, (CLIENT, 40000), (WEB, 80));
        for is_given in [true, false] {
            let mut datapath = Datapath::new();
            datapath.configure(|config| config.steering = STEERING_DIRECT);
            let answers = tuple.reversed();
            if is_given {
                datapath.learned(answers, flow(&answers, tuple, 0));
            }
            assert_eq!(datapath.run("from_pod", HERE, &opens).0, NEXT, "there is no such device");
            let is_direct = |flow: Flow<V>| flow.flags & DIRECT != 0;
            assert_eq!(datapath.cached(&answers).is_some_and(is_direct), !is_given);
        }
    }
    both((run::<V4>, run::<V6>));
}
