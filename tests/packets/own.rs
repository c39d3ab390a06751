//! The host's own flows, which no cached decision may capture.

use netplug_common::counter::Counter;
use netplug_common::ip::V4;
use netplug_common::tuple::TCP;
use netplug_tests::cast::{NODE_1, OUTSIDE, WEB};
use netplug_tests::packet::{assert_same, eth, ipv4, payload, tcp};

use crate::datapath::{Datapath, HERE, NEXT, REDIRECT, flow, tuple};

/// Ports of `ip_local_port_range` belong to the host's sockets; those below may be a NodePort's.
#[test]
fn answers_to_the_hosts_own_calls_are_not_captured() {
    for (port, verdict) in [(40000, NEXT), (31000, REDIRECT)] {
        let mut datapath = Datapath::new();
        let entered = tuple::<V4>(TCP, (OUTSIDE, 443), (NODE_1, port));
        datapath.learned(entered, flow(&entered, tuple(TCP, (OUTSIDE, 443), (WEB, 80)), 0));
        let answer = eth(OUTSIDE, NODE_1)
            / ipv4(OUTSIDE, NODE_1)
            / tcp(443, port).ack()
            / payload(b"answer");
        let (got, out) = datapath.run("from_uplink", HERE, &answer);
        assert_eq!(got, verdict, "{port}");
        if verdict == NEXT {
            assert_same(&answer.bytes(), &out);
            assert_eq!(datapath.counted(Counter::Visit) + datapath.counted(Counter::Aside), 0);
        }
    }
}
