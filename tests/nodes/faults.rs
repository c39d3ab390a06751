//! What others left, took away or made beside netplug, and what is left after a failure.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use netplug::node::bridge::Kept;
use netplug_common::maps::LAYOUT;
use netplug_tests::cast::Family::{self, V4};
use netplug_tests::cast::{GATEWAY, OUTSIDE, pod_cidr};
use netplug_tests::counters::endpoints;
use netplug_tests::kernel::has_tcx;
use netplug_tests::ledger::Inventory;
use netplug_tests::leftovers;
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::runtime::Attachment;
use netplug_tests::traffic::Protocol::Tcp;
use netplug_tests::traffic::{PATIENCE, ping};
use rstest::rstest;
use serde_json::{Value, json};

use crate::scene::{PORT, waits_for};

/// A namespace that a runtime has made for a pod, and what it will call ADD with.
pub fn unplugged(node: &Node, name: &str, args: &str) -> (Namespace, Attachment) {
    let namespace = node.namespace().pod(name);
    let attachment = Attachment {
        container: format!("{name}-0001"),
        netns: Namespace::pod_path(name),
        interface: "eth0".into(),
        args: args.into(),
    };
    (namespace, attachment)
}

/// As `ip` shows it.
fn mac_of_bridge(node: &Node) -> String {
    let shown = node.namespace().run("ip -oneline link show cbr0");
    let mut words = shown.split_whitespace().skip_while(|word| *word != "link/ether");
    words.nth(1).unwrap_or_default().to_owned()
}

/// A bridge without a MAC of its own takes its lowest port's, and another when ports come and go; pods are told it once.
#[test]
fn a_bridge_that_was_there_keeps_its_mac() {
    let node = Node::new();
    let prefix = |family| pod_cidr(family).split_once('/').unwrap().1;
    node.namespace().feed(
        "ip -batch -",
        &format!(
            "link add cbr0 type bridge\n\
             address add {}/{} dev cbr0\n\
             address add {}/{} dev cbr0 nodad\n\
             link set cbr0 up\n",
            GATEWAY.v4,
            prefix(V4),
            GATEWAY.v6,
            prefix(Family::V6),
        ),
    );
    let before = mac_of_bridge(&node);
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    let third = node.add_pod("third");
    let works = || {
        for family in Family::BOTH {
            client.dial(web.at(family, PORT)).ask(Tcp, "hello").unwrap();
            ping(client.namespace(), GATEWAY.ip(family), 77, 64, PATIENCE).unwrap();
        }
        for pod in [&web, &client] {
            node.check(pod).unwrap();
        }
    };
    assert_eq!(mac_of_bridge(&node), before);
    works();
    node.check(&third).unwrap();
    node.del_pod(third);
    assert_eq!(mac_of_bridge(&node), before);
    works();
}

/// Setting a MAC, even the same, makes the kernel forget every neighbour: who comes must not take them from who is there.
#[test]
fn a_bridge_of_the_bridge_plugin_keeps_its_mac_from_the_first_pod_on() {
    let node = Node::new();
    let first = node.add_pod_chained("first", "bridge");
    let before = mac_of_bridge(&node);
    let others = ["web", "client"].map(|name| node.add_pod_chained(name, "bridge").listening(PORT));
    assert_eq!(mac_of_bridge(&node), before);
    node.check(&first).unwrap();
    node.del_pod(first);
    assert_eq!(mac_of_bridge(&node), before);
    let [web, client] = &others;
    for pod in &others {
        node.check(pod).unwrap();
    }
    for family in Family::BOTH {
        client.dial(web.at(family, PORT)).ask(Tcp, "hello").unwrap();
        ping(client.namespace(), GATEWAY.ip(family), 77, 64, PATIENCE).unwrap();
    }
}

/// A node that goes over to netplug has pods that the other plugin made, with leases in the folder that both keep.
#[test]
fn deleting_takes_away_a_pod_that_the_bridge_plugin_made() {
    let node = Node::new();
    let old = node.add_pod_to("old", &Network::bridge());
    let stays = node.add_pod_to("stays", &Network::bridge());
    let devices = |pod: &Namespace| pod.run("ip -brief link");
    assert!(devices(old.namespace()).contains("eth0"));
    let del = |of: &Pod| {
        node.runtime().del(node.namespace(), node.network(), of.attachment(), Some(of.result()))
    };
    del(&old).unwrap();
    let left = devices(old.namespace());
    assert!(!left.contains("eth0"), "{left}");
    assert!(devices(stays.namespace()).contains("eth0"));
    let leases = node.namespace().run("find /var/lib/cni/networks -name 10.244.*");
    assert!(leases.trim_end().ends_with(&stays.ip(V4).to_string()), "{leases}");
    assert_eq!(leases.lines().count(), 1, "{leases}");
    del(&stays).unwrap();
    node.assert_clean();
}

#[test]
fn a_first_add_that_fails_leaves_no_bridge() {
    let node = Node::new();
    let network = node.network().clone().with("uplinks", json!(["nope"]));
    let error = node.try_add_pod("web", &network).unwrap_err();
    assert!(error.msg.contains("nope") || error.details.contains("nope"), "{error}");
    let bridge = node.namespace().try_feed("ip link show cbr0", "");
    assert!(!bridge.status.success(), "{}", String::from_utf8_lossy(&bridge.stdout));
    node.assert_clean();
    let web = node.add_pod("web-again").listening(PORT);
    node.try_add_pod("other", &network).unwrap_err();
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "whole?").unwrap();
    node.del_pod(web);
    node.finish();
}

/// Leases of two networks know nothing of one another: an address may be asked for that the other has given out.
#[test]
fn an_address_of_another_networks_pod_is_refused_and_that_pod_stays_whole() {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let neighbours = || {
        let known = node.namespace().run("ip neigh show dev cbr0 nud permanent");
        let mut lines: Vec<_> = known.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (inventory, known) = (Inventory::of(node.namespace()), neighbours());
    assert_eq!(known.len(), 2, "{known:?}");
    let args = format!("IgnoreUnknown=1;IP={}", web.ip(V4));
    let (_twin, attachment) = unplugged(&node, "twin", &args);
    let others = node.network().clone().named("others");
    let error = node.runtime().add(node.namespace(), &others, &attachment).unwrap_err();
    assert!(!error.msg.is_empty(), "{error}");
    assert_eq!(neighbours(), known);
    inventory.assert_same(&Inventory::of(node.namespace()));
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "whole?").unwrap();
    node.runtime().del(node.namespace(), &others, &attachment, None).unwrap();
    assert_eq!(neighbours(), known);
    node.check(&web).unwrap();
}

#[test]
fn loading_goes_on_past_a_pod_that_vanished() {
    let node = Node::new();
    let gone = node.add_pod("gone");
    let web = node.add_pod("web").listening(PORT);
    node.namespace().run(&format!("ip link del {}", gone.host_end()));
    node.netplug("load");
    // As another build would: it does not find its own mark.
    node.namespace().run("rm /run/netplug/loaded");
    node.netplug("load");
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "hello").unwrap();
    node.del_pod(gone);
    node.del_pod(web);
    node.finish();
}

#[test]
fn programs_that_tell_are_silenced_by_the_next_load() {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let size = || {
        let pin = format!("/sys/fs/bpf/netplug/v{LAYOUT}/from_pod");
        let shown = node.namespace().run(&format!("bpftool -j prog show pinned {pin}"));
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["bytes_xlated"].as_u64().unwrap()
    };
    let silent = size();
    let mut telling = node.runtime().cli();
    telling.args(["load", "--log", "trace"]);
    telling.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = node.namespace().enter(|| telling.spawn()).unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_loaded = said.map_while(Result::ok).any(|line| line.contains("loaded"));
    let told = size();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_loaded);
    assert!(told > silent, "{told} octets are no more than {silent}");
    node.netplug("load");
    assert_eq!(size(), silent);
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "hello").unwrap();
}

#[test]
fn an_interface_of_the_pods_own_is_not_taken_for_netplugs() {
    let node = Node::new();
    let (pod, attachment) = unplugged(&node, "web", "");
    pod.run("ip link add eth0 type bridge");
    let error = node.runtime().add(node.namespace(), node.network(), &attachment).unwrap_err();
    let said = format!("{}; {}", error.msg, error.details);
    assert!(said.contains("eth0"), "{error}");
    // DEL would not help: the interface is not netplug's to take away.
    assert!(!said.contains("DEL it first"), "{error}");
    node.assert_clean();
    node.runtime().del(node.namespace(), node.network(), &attachment, None).unwrap();
    assert!(pod.run("ip link show type bridge").contains("eth0"));
    node.finish();
}

/// By a runtime that lost count, or by two of its workers.
#[rstest]
fn deleting_may_come_twice_at_once(#[values(true, false)] with_namespace: bool) {
    let node = Node::new();
    // Many, so that the two meet at ever another step.
    for number in 0..16 {
        let pod = node.add_pod(&format!("web-{number}"));
        let mut attachment = pod.attachment().clone();
        if !with_namespace {
            attachment.netns = "".into();
        }
        let del = || {
            node.runtime().del(node.namespace(), node.network(), &attachment, Some(pod.result()))
        };
        std::thread::scope(|scope| {
            for deleting in [scope.spawn(del), scope.spawn(del)] {
                deleting.join().unwrap().unwrap();
            }
        });
    }
    assert!(endpoints(&node).is_empty());
    node.finish();
}

/// A pin was lost, by whatever hand: nothing refuses to go on.
#[rstest]
fn a_lost_pin_keeps_nothing_of_a_pod_and_is_made_again(
    #[values("CONFIG", "PORTS", "ENDPOINTS4", "FLOWS6", "NAT_IN4", "HOSTPORTS6", "from_pod")]
    lost: &str,
    #[values("alone", "tcx", "chained")] way: &str,
) {
    if way == "tcx" && !has_tcx() {
        return;
    }
    let attach = if way == "tcx" { "tcx" } else { "auto" };
    let node = Node::with(Network::netplug().with("attach", attach));
    node.outside().listen(PORT);
    let web = match way {
        "chained" => node.add_pod_chained("web", "bridge"),
        _ => node.add_pod("web"),
    };
    for ip in Family::BOTH {
        let outside = (OUTSIDE.ip(ip), PORT).into();
        web.dial(outside).open(Tcp).unwrap().ask_times(20).unwrap();
    }
    assert!(!leftovers::of_pods(node.namespace()).is_empty());
    node.namespace().run(&format!("rm /sys/fs/bpf/netplug/v{LAYOUT}/{lost}"));
    node.del_pod(web);
    node.assert_no_leftovers();
    let again = node.add_pod("again");
    node.check(&again).unwrap();
    node.del_pod(again);
    node.finish();
}

/// What is pinned there may be of a build whose maps are of another shape.
#[test]
fn maps_of_another_shape_can_be_unloaded() {
    let node = Node::new();
    let web = node.add_pod("web");
    let folder = format!("/sys/fs/bpf/netplug/v{LAYOUT}");
    node.namespace().run(&format!("rm {folder}/CONFIG"));
    node.namespace().run(&format!(
        "bpftool map create {folder}/CONFIG type array key 4 value 8 entries 1 name CONFIG"
    ));
    let error = node.try_add_pod("late", node.network()).unwrap_err();
    assert!(error.msg.contains("unload --force"), "{error}");
    node.del_pod(web);
    node.netplug("unload --force");
    node.add_pod("after");
}

/// A bridge that speaks the spanning tree protocol has its ports listen for a while before they forward.
#[test]
fn a_bridge_with_spanning_tree_is_no_reason_to_fail() {
    let node = Node::new();
    node.namespace().run("ip link add cbr0 type bridge stp_state 1 forward_delay 200");
    node.add_pod("web");
}

/// What the datapath refused, no later ADD asks for again.
#[test]
fn a_network_that_is_refused_is_no_burden_to_others() {
    let node = Node::new();
    let many = too_many_cidrs(node.network());
    for name in ["first", "second"] {
        let error = node.try_add_pod(name, &many.clone().named("many")).unwrap_err();
        assert!(error.msg.contains("1024"), "{error}");
    }
    let web = node.add_pod("web").listening(PORT);
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "hello").unwrap();
    node.del_pod(web);
    node.finish();
}

/// A configuration that is refused late, once all but the datapath is set up.
pub fn too_many_cidrs(network: &Network) -> Network {
    let cidrs: Vec<_> =
        (0..1_100).map(|number| format!("11.{}.{}.0/24", number / 256, number % 256)).collect();
    network.clone().with("masquerade", json!({"nonMasqueradeCIDRs": cidrs}))
}

/// Who made the bridge and fails takes it away again, but not from under who found it there and has no port yet.
#[test]
fn an_add_that_fails_takes_no_bridge_from_another_that_begins() {
    let node = Node::new();
    let has_bridge = || node.namespace().try_feed("ip link show cbr0", "").status.success();
    let many = too_many_cidrs(node.network());
    // Who is between finding the bridge and plugging a port in.
    let begins = node.namespace().enter(|| Kept::shared().unwrap());
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| node.try_add_pod("many", &many).unwrap_err());
        waits_for(&node, "bridges.lock");
        assert!(has_bridge());
        drop(begins);
        failing.join().unwrap();
    });
    assert!(!has_bridge());
    // And who begins is one of these, as long as it has no port.
    let removes = node.namespace().run("stat -c %n /run/netplug/bridges.lock");
    let removes = node.namespace().enter(|| {
        let file = std::fs::File::open(removes.trim()).unwrap();
        file.lock().unwrap();
        file
    });
    let web = std::thread::scope(|scope| {
        let adding = scope.spawn(|| node.add_pod("web"));
        waits_for(&node, "bridges.lock");
        assert!(!has_bridge());
        drop(removes);
        adding.join().unwrap()
    });
    node.check(&web).unwrap();
    node.del_pod(web);
    node.finish();
}

/// An address that had to go from a bridge of another's is back when netplug is off again, or was refused.
#[rstest]
fn a_forced_address_gives_way_only_while_pods_are_served(#[values(false, true)] refused: bool) {
    const OTHER: &str = "10.244.0.9/16";
    let node = Node::new();
    node.namespace().feed(
        "ip -batch -",
        &format!("link add cbr0 type bridge\naddress add {OTHER} dev cbr0\nlink set cbr0 up\n"),
    );
    let addresses = || {
        let shown = node.namespace().run("ip -oneline address show dev cbr0 scope global");
        let mut found: Vec<_> = shown
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned))
            .collect();
        found.sort();
        found
    };
    let network = node.network().clone().with("forceAddress", true);
    let web = node.try_add_pod("first", node.network()).unwrap_err();
    assert!(web.msg.contains(OTHER), "{web}");
    if refused {
        node.try_add_pod("web", &too_many_cidrs(&network)).unwrap_err();
    } else {
        let web = node.add_pod_to("web", &network);
        assert!(!addresses().iter().any(|address| address == OTHER), "{:?}", addresses());
        node.try_add_pod("many", &too_many_cidrs(&network).named("many")).unwrap_err();
        ping(web.namespace(), GATEWAY.ip(V4), 77, 64, PATIENCE).unwrap();
        node.del_pod(web);
        node.netplug("unload");
    }
    assert_eq!(addresses(), [OTHER]);
}
