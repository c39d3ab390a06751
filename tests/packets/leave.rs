//! What leaves for a pod: nothing is changed, and only what visited is learned from.

use netplug_common::counter::Counter;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::config::STEERING_DIRECT;
use netplug_common::maps::flow::{CLOSED, DIRECT, UNTOUCHED};
use netplug_common::tuple::TCP;
use netplug_tests::cast::{CLIENT, GATEWAY, WEB};
use netplug_tests::packet::{assert_same, eth, ip, payload, tcp};

use crate::datapath::{Datapath, Family, HERE, NEXT, SHOT, THERE, flow, tuple};
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
        let direct = flow(&entered, entered, UNTOUCHED | DIRECT);
        datapath.learned(entered, direct);
        assert_eq!(datapath.run("to_pod", HERE, &opens).0, SHOT);
        assert_eq!(datapath.counted(Counter::TupleInUse), 1);
        datapath.learned(
            entered,
            netplug_common::maps::flow::Flow { flags: direct.flags | CLOSED, ..direct },
        );
        assert_eq!(datapath.run("to_pod", HERE, &opens).0, NEXT);
        assert!(!datapath.knows(&entered), "a closed one is forgotten");
    }
    both((run::<V4>, run::<V6>));
}
