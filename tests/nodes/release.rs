//! `netplug release`, and what else has an adopted bridge be as it was; what cannot be adopted at all.

use std::collections::BTreeSet;
use std::process::Command;

use netplug_tests::cast::Family::V4;
use netplug_tests::eventually::{SOON, becomes};
use netplug_tests::kernel::has_tcx;
use netplug_tests::ledger::Inventory;
use netplug_tests::leftovers;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::Udp;
use rstest::rstest;
use serde_json::json;

use crate::containers::{BRIDGE, Container, add_bridge};
use crate::half_way::MANY;

const SYSCTLS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/send_redirects",
    "net/ipv4/conf/docker0/send_redirects",
    "net/ipv4/conf/docker0/forwarding",
    "net/ipv4/conf/eth0/forwarding",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/eth0/accept_ra",
    "net/ipv6/conf/docker0/forwarding",
];

fn sysctls(node: &Node) -> Vec<String> {
    let read =
        |name: &&str| format!("{name} = {}", node.namespace().sysctl(name).unwrap_or_default());
    SYSCTLS.iter().map(read).collect()
}

/// A node that forwards nothing by itself, with a bridge of others'.
fn node() -> Node {
    let node = Node::new();
    add_bridge(&node);
    for (name, value) in SYSCTLS.iter().zip(["0", "1", "1", "0", "1", "0", "1", "0"]) {
        node.namespace().set_sysctl(name, value);
    }
    node
}

fn qdiscs(node: &Node) -> BTreeSet<String> {
    let shown = node.namespace().run("tc qdisc show");
    shown.lines().map(str::to_owned).filter(|line| line.contains("veth")).collect()
}

#[track_caller]
fn assert_nothing_left(node: &Node) {
    let left = leftovers::of_pods(node.namespace());
    assert!(left.is_empty(), "{left:?}");
    let state = node.namespace().try_feed("cat /run/netplug/state.json", "");
    let state = String::from_utf8_lossy(&state.stdout).into_owned();
    assert!(!state.contains(BRIDGE) && !state.contains("ip_forward"), "{state}");
}

#[rstest]
fn a_release_leaves_nothing(#[values("", "clsact", "ingress")] qdisc: &str) {
    if qdisc == "ingress" && !has_tcx() {
        return;
    }
    let node = node();
    let [web, client] = [2, 3].map(|number| Container::add(&node, number));
    web.serve(&node);
    if !qdisc.is_empty() {
        node.namespace().run(&format!("tc qdisc add dev {} {qdisc}", web.port()));
    }
    node.netplug("load");
    let before = (Inventory::of(node.namespace()), sysctls(&node), qdiscs(&node));
    let first = node.netplug("adopt docker0");
    assert_ne!(sysctls(&node), before.1);
    assert_eq!(node.netplug("adopt docker0"), first);
    assert_eq!(client.asks_service(V4, Udp, 1).unwrap(), "c2");
    let released = node.netplug_json("release docker0");
    assert_eq!(released["released"]["ports"], json!(["veth2", "veth3"]), "{released}");
    before.0.assert_same(&Inventory::of(node.namespace()));
    assert_eq!((sysctls(&node), qdiscs(&node)), (before.1, before.2));
    assert_nothing_left(&node);
    client.asks_service(V4, Udp, 1).unwrap_err();
    let again = node.netplug("release docker0");
    assert!(again.contains("was not adopted"), "{again}");
}

/// What several want stays until the last of them goes; what pods want, until `unload`.
#[rstest]
fn a_release_leaves_others_what_they_want(#[values("a bridge", "a pod")] other: &str) {
    let node = node();
    let before = sysctls(&node);
    let forwards = || {
        ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/send_redirects"]
            .map(|name| node.namespace().sysctl(name).unwrap())
    };
    node.netplug("adopt docker0");
    assert_eq!(forwards(), ["1", "1", "0"]);
    if other == "a bridge" {
        node.namespace().run("ip link add virbr0 type bridge");
        node.namespace().run("ip address add fd00:122::1/64 dev virbr0 nodad");
        node.netplug("adopt virbr0");
        node.netplug("release docker0");
        assert_eq!(forwards(), ["1", "1", "0"]);
        assert_eq!(node.namespace().sysctl("net/ipv6/conf/eth0/accept_ra").unwrap(), "2");
        let redirects = node.namespace().sysctl("net/ipv4/conf/docker0/send_redirects");
        assert_eq!(redirects.as_deref(), Some("1"));
        node.netplug("release virbr0");
    } else {
        let pod = node.add_pod("web");
        let said = node.netplug("release docker0");
        assert_eq!(forwards(), ["1", "1", "0"], "{said}");
        node.del_pod(pod);
        node.netplug("unload");
    }
    assert_eq!(sysctls(&node), before);
}

/// A bridge that has gone, with the containers of it.
#[test]
fn a_bridge_that_is_gone_is_released() {
    let node = node();
    let web = Container::add(&node, 2);
    node.netplug("adopt docker0");
    web.remove(&node);
    node.namespace().run("ip link del docker0");
    let said = node.netplug("release docker0");
    assert!(said.contains("released"), "{said}");
    assert_eq!(node.namespace().sysctl("net/ipv4/ip_forward").unwrap(), "0");
    assert_nothing_left(&node);
}

/// Or without them: they stay, or are on another bridge by now.
#[rstest]
fn a_bridge_that_is_gone_without_its_ports_is_released(#[values(false, true)] is_made_anew: bool) {
    let node = node();
    let web = Container::add(&node, 2);
    let before = qdiscs(&node);
    node.netplug("adopt docker0");
    node.namespace().run("ip link del docker0");
    if is_made_anew {
        add_bridge(&node);
    }
    let released = node.netplug_json("release docker0");
    assert_eq!(released["released"]["ports"], json!([web.port()]), "{released}");
    assert_eq!(qdiscs(&node), before);
    assert_nothing_left(&node);
}

/// Programs hang there without any pin; and on pods, whose ports are told by nothing else then.
#[rstest]
fn a_release_does_without_pins(#[values("/v1/PORTS", "")] lost: &str) {
    let node = Node::new();
    let pod = node.add_pod_chained("web", "bridge");
    node.namespace().run("ip link add guest type veth peer name guest-peer");
    node.namespace().run("ip link set guest master cbr0");
    let filters = |port: &str| node.namespace().run(&format!("tc filter show dev {port} ingress"));
    node.netplug("adopt cbr0");
    assert!(filters("guest").contains("from_pod"));
    node.namespace().run(&format!("rm -r /sys/fs/bpf/netplug{lost}"));
    let released = node.netplug_json("release cbr0");
    assert_eq!(released["released"]["ports"], json!(["guest"]), "{released}");
    assert_eq!(filters("guest"), "");
    assert!(filters(&pod.host_end()).contains("from_pod"), "it is a pod's");
}

/// Who watches wants uplinks to forward, as they did before.
#[test]
fn a_release_leaves_uplinks_what_they_had() {
    let node = node();
    let before = sysctls(&node);
    node.netplug("adopt docker0");
    let _watcher = node.watch("");
    becomes(SOON, 1, || {
        let shown = node.netplug_json("masquerade show");
        shown["masquerade"]["uplinks"].as_array().map_or(0, Vec::len)
    });
    // It has looked at all of it.
    node.netplug("adopt docker0");
    node.netplug("release docker0");
    assert_eq!(sysctls(&node), before);
}

/// They are nobody's pods: there is nothing to force.
#[rstest]
fn unloading_releases(#[values(false, true)] is_watched: bool) {
    let node = node();
    let web = Container::add(&node, 2);
    let before = (Inventory::of(node.namespace()), sysctls(&node), qdiscs(&node));
    let watcher = is_watched.then(|| node.watch(""));
    node.netplug("adopt docker0");
    let pod = node.add_pod("pod");
    let refused = node.try_netplug("unload");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && !said.contains(&web.port()), "{said}");
    node.del_pod(pod);
    let said = node.netplug("unload");
    assert!(said.contains("docker0 is adopted no more"), "{said}");
    if watcher.is_some() {
        // Whatever it was told of came before this.
        node.namespace().run("ip link set veth2 down");
        node.namespace().run("ip link set veth2 up");
    }
    before.0.assert_same(&Inventory::of(node.namespace()));
    assert_eq!((sysctls(&node), qdiscs(&node)), (before.1, before.2));
}

#[test]
fn what_is_no_bridge_of_others_is_refused() {
    let node = Node::new();
    let pod = node.add_pod("web");
    let vlans = node.namespace().try_feed("ip link add vlans0 type bridge vlan_filtering 1", "");
    let knows_vlans = vlans.status.success();
    if !knows_vlans {
        eprintln!("skipped in part: bridges of this kernel part no VLANs");
    }
    for (name, why) in [
        ("nobody0", "no such interface"),
        ("a/b", "no such interface"),
        ("eth0", "not a bridge"),
        ("cbr0", "netplug made it"),
        ("vlans0", if knows_vlans { "vlan_filtering" } else { "no such interface" }),
    ] {
        let refused = node.try_netplug(&format!("adopt {name}"));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(name) && said.contains(why), "{said}");
        let state = node.namespace().run("cat /run/netplug/state.json");
        assert!(state.contains(r#""adopted": []"#), "{state}");
    }
    node.check(&pod).unwrap();
    node.del_pod(pod);
    if knows_vlans {
        node.namespace().run("ip link del vlans0");
    }
    node.finish();
}

/// Nor is anything loaded for it.
#[test]
fn a_refusal_loads_nothing() {
    let node = Node::new();
    let before = Inventory::of(node.namespace());
    assert!(!node.try_netplug("adopt nobody0").status.success());
    before.assert_same(&Inventory::of(node.namespace()));
}

/// Virtual machines are behind taps; what is behind hardware, or a tunnel, is no guest of the node's.
#[test]
fn only_ports_of_guests_are_steered() {
    let node = node();
    let web = Container::add(&node, 2);
    let host = node.namespace();
    host.run("ip tuntap add tap0 mode tap");
    host.run("ip link set tap0 master docker0");
    host.run("ip link add vxlan5 type vxlan id 5 dstport 4789");
    host.run("ip link set vxlan5 master docker0");
    let adopted = node.netplug_json("adopt docker0");
    let mut ports: Vec<_> = crate::masquerade::texts(&adopted["adopted"]["ports"]);
    ports.sort();
    assert_eq!(ports, ["tap0", &web.port()], "{adopted}");
    assert_eq!(adopted["adopted"]["left_alone"][0]["port"], "vxlan5", "{adopted}");
    let said = node.netplug("adopt docker0");
    assert!(said.contains("left alone: vxlan5"), "{said}");
    let filters = host.run("tc filter show dev vxlan5 ingress");
    assert_eq!(filters, "");
}

/// Whatever the kernel refuses, and wherever it is killed: then a release finds all of it.
#[rstest]
fn an_adoption_that_ends_half_way_leaves_nothing(
    #[values("sendto", "bpf")] calls: &str,
    #[values("error=ENOMEM", "signal=KILL")] end: &str,
) {
    let node = node();
    let _web = Container::add(&node, 2);
    let _client = Container::add(&node, 3);
    node.netplug("load");
    let before = (Inventory::of(node.namespace()), sysctls(&node), qdiscs(&node));
    for call in 1..MANY {
        let mut command = node.runtime().cli();
        command.args(["adopt", BRIDGE]);
        let mut ended = Command::new("strace");
        ended.args(["-f", "-e", &format!("trace={calls}"), "-e"]);
        ended.arg(format!("inject={calls}:{end}:when={call}"));
        ended.arg(command.get_program()).args(command.get_args()).env_clear();
        ended.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = node.namespace().output(ended, b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() && !said.contains("(INJECTED)") {
            assert!(call > 10, "an adoption of {call} calls");
            return;
        }
        // It could do without, or not tidy up.
        if output.status.success() || end == "signal=KILL" {
            node.netplug("release docker0");
        }
        assert_eq!((&sysctls(&node), &qdiscs(&node)), (&before.1, &before.2), "{call}: {said}");
        before.0.assert_same(&Inventory::of(node.namespace()));
        assert_nothing_left(&node);
    }
    panic!("it never gets through");
}
