//! `netplug promote`, where pods go meanwhile.

use netplug::datapath::Lock;
use netplug_tests::cast::Family::V4;
use netplug_tests::kernel::has_tcx;
use netplug_tests::leftovers;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::Tcp;
use rstest::rstest;

use crate::scene::{PORT, waits_for};

#[test]
fn promoting_goes_on_past_a_pod_that_vanished() {
    if !has_tcx() {
        return;
    }
    let node = Node::new();
    let gone = node.add_pod("gone");
    let web = node.add_pod("web").listening(PORT);
    let filters =
        || node.namespace().run(&format!("tc filter show dev {} ingress", web.host_end()));
    assert!(filters().contains("bpf"), "{}", filters());
    node.namespace().run(&format!("ip link del {}", gone.host_end()));
    let promoted = node.netplug_json("promote");
    assert_eq!(promoted["promoted"], 1, "{promoted}");
    assert!(!filters().contains("bpf"), "{}", filters());
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "hello").unwrap();
    node.del_pod(gone);
    node.del_pod(web);
    node.finish();
}

/// Attaching takes its time. What is pinned for a pod that went meanwhile, or into a folder that is being emptied, nobody would
/// find.
#[rstest]
fn promoting_waits_for_who_takes_pods_or_netplug_away(#[values(false, true)] unloads: bool) {
    if !has_tcx() {
        return;
    }
    let node = Node::new();
    let web = node.add_pod("web");
    let lock = if unloads { Lock::exclusive } else { Lock::shared };
    let lock = node.namespace().enter(|| lock().unwrap());
    let promoted = std::thread::scope(|scope| {
        let promoting = scope.spawn(|| node.netplug_json("promote"));
        waits_for(&node, "load.lock");
        if unloads {
            node.namespace().enter(|| drop(netplug::datapath::unload(&lock).unwrap()));
        } else {
            node.detach(&web).unwrap();
        }
        drop(lock);
        promoting.join().unwrap()
    });
    assert_eq!(promoted["promoted"], 0, "{promoted}");
    let left = leftovers::of_pods(node.namespace());
    assert!(!left.iter().any(|line| line.contains("the pin")), "{left:?}");
}
