//! Other software's TC filters: netplug puts none of its own in their place, and takes none of them away.

use std::process::Command;

use netplug_tests::cast::Family::V4;
use netplug_tests::cast::{NODE_1, OUTSIDE};
use netplug_tests::counters::endpoints;
use netplug_tests::kernel::has_tcx;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::Tcp;
use rstest::rstest;

use crate::scene::PORT;

fn filters(node: &Node, device: &str, side: &str) -> String {
    node.namespace().run(&format!("tc filter show dev {device} {side}"))
}

fn count(shown: &str, what: &str) -> usize {
    shown.lines().filter(|line| line.contains(what)).count()
}

/// At the priority and with the handle that ours would have, and where it would go next.
#[rstest]
fn a_filter_that_stands_where_ours_would_stays(#[values(1, 2)] others: usize) {
    let node = Node::with(Network::netplug().with("attach", "clsact"));
    node.namespace().run("tc qdisc add dev eth0 clsact");
    for (number, side) in (0..others).flat_map(|n| [(n, "ingress"), (n, "egress")]) {
        let mut add = Command::new("tc");
        let at = format!("filter add dev eth0 {side} prio {} handle 1", 50 + number);
        // -1: on to the next filter.
        add.args(at.split(' ')).args(["bpf", "da", "bytecode", "1,6 0 0 4294967295"]);
        let output = node.namespace().output(add, b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let show = || ["ingress", "egress"].map(|side| filters(&node, "eth0", side));
    let before = show();
    node.outside().listen(PORT);
    let web = node.add_pod("web").listening(PORT);
    let is_there = |there: &[String; 2]| {
        for (there, program) in there.iter().zip(["from_uplink", "to_uplink"]) {
            assert_eq!(count(there, "bytecode"), others, "{there}");
            assert_eq!(count(there, &format!(" {program} ")), 1, "{there}");
        }
    };
    is_there(&show());
    let ask = || {
        web.dial((OUTSIDE.ip(V4), PORT).into()).open(Tcp).unwrap().ask_times(20).unwrap();
        node.outside().dial(web.at(V4, PORT)).open(Tcp).unwrap().ask_times(20).unwrap();
    };
    ask();
    // Another build's take the place of ours, wherever that is.
    node.namespace().run("rm /run/netplug/loaded");
    node.netplug("load");
    is_there(&show());
    ask();
    node.del_pod(web);
    node.netplug("unload");
    assert_eq!(show(), before);
    node.namespace().run("tc qdisc del dev eth0 clsact");
    node.finish();
}

/// Other software's was there when ours came, and went: ours stays where it is, and is not there twice.
#[test]
fn ours_is_replaced_where_it_is() {
    let node = Node::with(Network::netplug().with("attach", "clsact"));
    node.namespace().run("tc qdisc add dev eth0 clsact");
    for side in ["ingress", "egress"] {
        let mut add = Command::new("tc");
        add.args(["filter", "add", "dev", "eth0", side, "prio", "50", "handle", "1", "bpf", "da"]);
        add.args(["bytecode", "1,6 0 0 4294967295"]);
        assert!(node.namespace().output(add, b"").status.success());
    }
    node.outside().listen(PORT);
    let web = node.add_pod("web").listening(PORT);
    for side in ["ingress", "egress"] {
        node.namespace().run(&format!("tc filter del dev eth0 {side} prio 50"));
    }
    node.namespace().run("rm /run/netplug/loaded");
    node.netplug("load");
    for (side, program) in [("ingress", "from_uplink"), ("egress", "to_uplink")] {
        let there = filters(&node, "eth0", side);
        assert_eq!(count(&there, &format!(" {program} ")), 1, "{there}");
    }
    web.dial((OUTSIDE.ip(V4), PORT).into()).open(Tcp).unwrap().ask_times(20).unwrap();
}

/// An `ingress` qdisc has one side only, and stands where clsact would.
#[rstest]
fn an_ingress_qdisc_leaves_no_room_for_clsact(#[values("clsact", "auto")] attach: &str) {
    let node = Node::with(Network::netplug().with("attach", attach));
    node.namespace().run("tc qdisc add dev eth0 ingress");
    node.outside().listen(PORT);
    let added = node.try_add_pod("web", node.network());
    if attach == "auto" && has_tcx() {
        let web = added.unwrap();
        let answer = web.dial((OUTSIDE.ip(V4), PORT).into()).ask(Tcp, "who?").unwrap();
        assert_eq!(answer.client_ip(), NODE_1.ip(V4));
    } else {
        let error = added.unwrap_err();
        assert!(format!("{error}").contains("ingress qdisc"), "{error}");
    }
}

/// What the kernel refuses is no sign that there was nothing.
#[test]
fn a_filter_that_cannot_be_taken_off_is_told() {
    let node = Node::new();
    // Without a bridge there is nothing else to take away before.
    let web = node.add_pod_chained("web", "ptp");
    let mut powerless = Command::new("setpriv");
    let unload = node.runtime().cli();
    powerless.args(["--inh-caps=-net_admin", "--bounding-set=-net_admin"]);
    powerless.arg(unload.get_program()).args(["unload", "--force"]);
    let output = node.namespace().output(powerless, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("cannot detach"), "{said}");
    assert_eq!(endpoints(&node).len(), 1);
    node.check(&web).unwrap();
    node.del_pod(web);
    node.finish();
}
