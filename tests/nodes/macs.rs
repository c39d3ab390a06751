//! A MAC is one interface's on a bridge: frames for it would come to whoever had it last.

use netplug_tests::cast::Family::{V4, V6};
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::runtime::{Attachment, PluginError};
use netplug_tests::traffic::Protocol::Tcp;
use rstest::rstest;

use crate::scene::PORT;

const MAC: &str = "02:00:00:00:00:aa";

/// A namespace for a pod, and what a runtime that wants `mac` for it calls ADD and DEL with.
fn wanting(node: &Node, name: &str, mac: &str) -> (Namespace, Attachment) {
    let attachment = Attachment {
        container: format!("{name}-0001"),
        netns: Namespace::pod_path(name),
        interface: "eth0".into(),
        args: format!("IgnoreUnknown=1;MAC={mac}"),
    };
    let namespace = node.namespace().pod(name);
    namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    (namespace, attachment)
}

fn add(node: &Node, network: &Network, attachment: &Attachment) -> Result<(), PluginError> {
    node.runtime().add(node.namespace(), network, attachment).map(drop)
}

fn mac_of(namespace: &Namespace, link: &str) -> String {
    let shown = namespace.run(&format!("ip -oneline link show {link}"));
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).expect("it has Ethernet headers").to_owned()
}

/// What the bridge was told, but for multicast.
fn fdb(node: &Node) -> Vec<String> {
    let shown = node.namespace().run("bridge fdb show br cbr0");
    let is_told = |line: &&str| line.contains("static") || line.contains("permanent");
    let mut lines: Vec<_> = shown.lines().filter(is_told).map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("33:33:") && !line.starts_with("01:00:5e"));
    lines.sort();
    lines
}

#[track_caller]
fn is_whole(node: &Node, web: &Pod) {
    node.check(web).expect("all is as ADD left it");
    node.netplug("flush");
    for family in [V4, V6] {
        let answer = node.outside().dial(web.at(family, PORT)).ask(Tcp, "whole?");
        let answer = answer.expect("the pod is reached");
        assert_eq!(answer.server, web.name());
    }
}

/// Another pod's, the bridge's, or that of a host end, which the bridge takes frames in by, too.
#[rstest]
fn a_mac_that_is_anothers_is_refused_and_nothing_changes(
    #[values("pod", "bridge", "host end")] whose: &str,
    #[values(false, true)] chained: bool,
) {
    let node = Node::new();
    let network = if chained { Network::bridge().then_netplug() } else { node.network().clone() };
    let web = node.add_pod_to("web", &network).listening(PORT);
    let taken = match whose {
        "bridge" => mac_of(node.namespace(), "cbr0"),
        "host end" => mac_of(node.namespace(), &web.host_end()),
        _ => mac_of(web.namespace(), "eth0"),
    };
    let before = fdb(&node);
    let (_namespace, twin) = wanting(&node, "twin", &taken);
    let error = add(&node, &network, &twin).unwrap_err();
    assert_eq!((error.plugin.as_str(), error.code), ("netplug", 110), "{error}");
    assert!(error.msg.contains(&taken), "{error}");
    if !chained {
        assert_eq!(fdb(&node), before);
        is_whole(&node, &web);
    }
    node.runtime().del(node.namespace(), &network, &twin, None).unwrap();
    assert_eq!(fdb(&node), before);
    is_whole(&node, &web);
    node.del_pod(web);
    node.finish();
}

#[test]
fn of_two_that_want_a_mac_at_once_one_gets_it() {
    let node = Node::new();
    let other = node.add_pod("other");
    for round in 0..12 {
        let twins = ["a", "b"].map(|name| wanting(&node, &format!("{name}-{round}"), MAC));
        let added: Vec<_> = std::thread::scope(|scope| {
            let adding = twins.each_ref().map(|(_, twin)| {
                let node = &node;
                scope.spawn(move || add(node, node.network(), twin))
            });
            adding.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(added.iter().filter(|added| added.is_ok()).count(), 1, "{round}: {added:?}");
        let known = fdb(&node);
        let of_twins = known.iter().filter(|line| line.starts_with(MAC)).count();
        assert_eq!(of_twins, 1, "{round}: {known:?}");
        for (_, twin) in &twins {
            node.runtime().del(node.namespace(), node.network(), twin, None).unwrap();
        }
        assert!(!fdb(&node).iter().any(|line| line.starts_with(MAC)), "{round}");
    }
    node.del_pod(other);
    node.finish();
}

/// A machine that moves here keeps its MAC, which the bridge has seen behind another port.
#[test]
fn a_mac_that_was_only_heard_is_taken_over() {
    let node = Node::new();
    let first = node.add_pod("first");
    node.namespace().run("ip link add eth1 type veth peer name eth1p");
    node.namespace().run("ip link set eth1 master cbr0 up");
    node.namespace().run("ip link set eth1p up");
    // As soon as the port forwards.
    eventually(SOON, || {
        let add = format!("bridge fdb add {MAC} dev eth1 master dynamic");
        let output = node.namespace().try_feed(&add, "");
        if output.status.success() { Ok(()) } else { Err(output) }
    });
    let (_namespace, moved) = wanting(&node, "moved", MAC);
    add(&node, node.network(), &moved).unwrap();
    let known = fdb(&node);
    let of_moved: Vec<_> = known.iter().filter(|line| line.starts_with(MAC)).collect();
    assert_eq!(of_moved.len(), 1, "{known:?}");
    assert!(!of_moved[0].contains("eth1"), "{known:?}");
    node.runtime().del(node.namespace(), node.network(), &moved, None).unwrap();
    node.namespace().run("ip link del eth1");
    node.del_pod(first);
    node.finish();
}

#[test]
fn a_mac_that_no_interface_can_have_is_refused() {
    let node = Node::new();
    for mac in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
        let (_namespace, attachment) = wanting(&node, &format!("pod-{}", &mac[..2]), mac);
        let error = add(&node, node.network(), &attachment).unwrap_err();
        assert!(error.msg.contains(mac), "{error}");
    }
    node.assert_clean();
}
