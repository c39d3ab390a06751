//! What `netplug unload` refuses, takes away and puts back.

use netplug_common::maps::LAYOUT;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::GATEWAY;
use netplug_tests::counters::endpoints;
use netplug_tests::ledger::Inventory;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::{Tcp, Udp};
use netplug_tests::traffic::{PATIENCE, ping};
use rstest::rstest;

use crate::scene::{PORT, waits_for};

/// A device that is neither a pod's nor an uplink.
fn add_a_device(node: &Node) {
    node.namespace().run("ip link add eth1 type veth peer name eth1p");
}

fn sysctls(node: &Node, names: &[&str]) -> Vec<String> {
    let read =
        |name: &&str| format!("{name} = {}", node.namespace().sysctl(name).unwrap_or_default());
    names.iter().map(read).collect()
}

#[test]
fn unloading_under_pods_is_refused_and_changes_nothing() {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    let before = Inventory::of(node.namespace());
    let output = node.try_netplug("unload");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--force"), "{said}");
    let mut words = said.split(|c: char| !c.is_ascii_alphanumeric());
    assert!(words.any(|word| word == "2"), "how many pods there are is not in: {said}");
    before.assert_same(&Inventory::of(node.namespace()));
    assert_eq!(endpoints(&node).len(), 2);
    for pod in [&web, &client] {
        node.check(pod).unwrap();
    }
    for family in Family::BOTH {
        client.dial(web.at(family, PORT)).tcp().unwrap().ask_times(30).unwrap();
    }
    node.netplug("unload --force");
    Inventory::of(node.namespace()).assert_unloaded();
    for family in Family::BOTH {
        client.dial(web.at(family, PORT)).ask(Tcp, "still a bridge").unwrap();
    }
}

/// A neighbour that is known for good would outlive its pod: nobody is left to forget it.
#[rstest]
fn unloading_by_force_leaves_no_neighbour_of_a_pod(#[values(false, true)] chained: bool) {
    let node = Node::new();
    let web = if chained { node.add_pod_chained("web", "bridge") } else { node.add_pod("web") };
    let known = || node.namespace().run("ip neigh show dev cbr0 nud permanent");
    let of_pod = |known: &str| {
        let mut firsts = known.lines().filter_map(|line| line.split_whitespace().next());
        firsts.any(|first| Family::BOTH.iter().any(|ip| first == web.ip(*ip).to_string()))
    };
    assert!(of_pod(&known()), "{}", known());
    node.netplug("unload --force");
    assert!(!of_pod(&known()), "{}", known());
    node.del_pod(web);
    node.finish();
}

/// `ip_forward` and `all/forwarding` write to other sysctls, too: setting them back is not enough.
#[test]
fn unloading_puts_back_what_forwarding_changed_beside_itself() {
    const SYSCTLS: [&str; 5] = [
        "net/ipv4/ip_forward",
        "net/ipv4/conf/all/accept_redirects",
        "net/ipv4/conf/eth1/forwarding",
        "net/ipv6/conf/all/forwarding",
        "net/ipv6/conf/eth1/forwarding",
    ];
    let node = Node::new();
    add_a_device(&node);
    // In this order: the first of each family writes to what comes after it.
    for (name, value) in SYSCTLS.iter().zip(["0", "0", "1", "0", "1"]) {
        node.namespace().set_sysctl(name, value);
    }
    let before = sysctls(&node, &SYSCTLS);
    let web = node.add_pod("web");
    assert_eq!(node.namespace().sysctl("net/ipv4/ip_forward").unwrap(), "1");
    assert_eq!(node.namespace().sysctl("net/ipv6/conf/all/forwarding").unwrap(), "1");
    node.del_pod(web);
    node.netplug("unload");
    assert_eq!(sysctls(&node, &SYSCTLS), before);
}

#[test]
fn unloading_leaves_what_the_admin_set_in_the_meantime() {
    const ACCEPT: &str = "net/ipv6/conf/eth0/accept_ra";
    let node = Node::new();
    node.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "0");
    node.namespace().set_sysctl(ACCEPT, "1");
    let web = node.add_pod("web");
    assert_eq!(node.namespace().sysctl(ACCEPT).unwrap(), "2");
    node.namespace().set_sysctl(ACCEPT, "0");
    node.del_pod(web);
    node.netplug("unload");
    assert_eq!(node.namespace().sysctl(ACCEPT).unwrap(), "0");
}

/// A host that begins to forward stops heeding router advertisements, on every device that `accept_ra` says 1 of.
#[test]
fn every_device_goes_on_heeding_router_advertisements_until_unload() {
    const ACCEPT: &str = "net/ipv6/conf/eth1/accept_ra";
    let node = Node::new();
    add_a_device(&node);
    node.namespace().set_sysctl("net/ipv6/conf/all/forwarding", "0");
    node.namespace().set_sysctl(ACCEPT, "1");
    let web = node.add_pod("web");
    assert_eq!(node.namespace().sysctl("net/ipv6/conf/all/forwarding").unwrap(), "1");
    assert_eq!(node.namespace().sysctl(ACCEPT).unwrap(), "2");
    node.del_pod(web);
    node.netplug("unload");
    assert_eq!(node.namespace().sysctl(ACCEPT).unwrap(), "1");
}

#[rstest]
fn a_clsact_qdisc_stays_only_where_it_was_before(#[values(false, true)] was_there: bool) {
    let node = Node::with(netplug_tests::network::Network::netplug().with("attach", "clsact"));
    let has_clsact = || node.namespace().run("tc qdisc show dev eth0").contains("clsact");
    if was_there {
        node.namespace().run("tc qdisc add dev eth0 clsact");
    }
    let web = node.add_pod("web").listening(PORT);
    for side in ["ingress", "egress"] {
        let filters = node.namespace().run(&format!("tc filter show dev eth0 {side}"));
        assert!(filters.contains("bpf"), "{side}: {filters}");
    }
    for family in [V4, V6] {
        node.outside().dial(web.at(family, PORT)).ask(Udp, "in").unwrap();
    }
    node.del_pod(web);
    node.netplug("unload");
    assert_eq!(has_clsact(), was_there);
}

/// What was another's is as it was, but for its MAC's origin.
#[test]
fn unloading_leaves_anothers_bridge_as_it_was() {
    let node = Node::new();
    node.namespace().run("ip link add cbr0 type bridge");
    node.namespace().set_sysctl("net/ipv6/conf/cbr0/disable_ipv6", "1");
    let pod = node.add_pod("web");
    node.del_pod(pod);
    node.netplug("unload");
    let addresses = node.namespace().run("ip -oneline address show dev cbr0 scope global");
    assert_eq!(addresses, "");
    let disabled = node.namespace().sysctl("net/ipv6/conf/cbr0/disable_ipv6");
    assert_eq!(disabled.as_deref(), Some("1"));
}

/// Routed pods' interfaces that are gone are no more to be put back.
#[test]
fn unloading_puts_back_whether_a_device_forwards() {
    let node = Node::new();
    node.namespace().run("ip link add cbr0 type bridge");
    node.namespace().set_sysctl("net/ipv4/ip_forward", "1");
    node.namespace().set_sysctl("net/ipv4/conf/default/forwarding", "0");
    node.namespace().set_sysctl("net/ipv4/conf/cbr0/forwarding", "0");
    let web = node.add_pod("web");
    let [first, last] = ["first", "last"].map(|name| {
        let routed = node.add_pod_chained(name, "ptp");
        let kept = node.namespace().run("cat /run/netplug/state.json");
        assert!(kept.contains(&routed.host_end()), "{kept}");
        (routed.host_end(), node.del_pod(routed)).0
    });
    let kept = node.namespace().run("cat /run/netplug/state.json");
    assert!(!kept.contains(&first), "{first}, {last}: {kept}");
    let stays = node.add_pod_chained("stays", "ptp");
    let forwards = |device: &str| {
        node.namespace().sysctl(&format!("net/ipv4/conf/{device}/forwarding")).unwrap()
    };
    let devices = ["cbr0".to_owned(), stays.host_end()];
    assert_eq!(devices.each_ref().map(|device| forwards(device)), ["1", "1"]);
    node.del_pod(web);
    node.netplug("unload --force");
    assert_eq!(devices.each_ref().map(|device| forwards(device)), ["0", "0"]);
}

/// A pin was lost while a pod is served: its programs go on, and nothing takes them away unasked. Which pods there are and how
/// the node is set nobody can make up, so such a map is not made again under them.
#[rstest]
fn unloading_what_is_torn_is_refused(
    #[values("COUNTERS", "PORTS", "ENDPOINTS4", "CONFIG")] lost: &str,
) {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    node.namespace().run(&format!("rm /sys/fs/bpf/netplug/v{LAYOUT}/{lost}"));
    let is_refused = || {
        let output = node.try_netplug("unload");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("--force") && said.contains(&web.host_end()), "{said}");
    };
    is_refused();
    if lost == "COUNTERS" {
        // Whole again with the next pod.
        let other = node.add_pod("other");
        is_refused();
        node.check(&other).unwrap();
        node.check(&web).unwrap();
        return;
    }
    let loaded = node.try_netplug("load");
    let said = String::from_utf8_lossy(&loaded.stderr);
    assert_eq!(loaded.status.code(), Some(1), "{said}");
    assert!(said.contains(lost) && said.contains("unload --force"), "{said}");
    let error = node.try_add_pod("other", node.network()).unwrap_err();
    assert!(error.msg.contains(lost) && error.msg.contains("unload --force"), "{error}");
    is_refused();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "still served").unwrap();
    node.netplug("unload --force");
    Inventory::of(node.namespace()).assert_unloaded();
    let neighbours = node.namespace().run("ip neigh show nud permanent");
    assert_eq!(neighbours, "");
    node.del_pod(web);
    let again = node.add_pod("again");
    node.check(&again).unwrap();
    node.del_pod(again);
    node.finish();
}

/// A pod is added to a bridge that another made, while an operator unloads: either is first, and the pod works.
#[test]
fn unloading_while_a_pod_is_added_leaves_the_pod_its_gateway() {
    let node = Node::new();
    node.namespace().run("ip link add cbr0 type bridge");
    let inside = |work: &(dyn Fn() + Sync)| node.namespace().enter(work);
    let lock = node.namespace().enter(|| netplug::datapath::Lock::exclusive().unwrap());
    let web = std::thread::scope(|scope| {
        let adding = scope.spawn(|| node.add_pod("web"));
        // The ADD goes as far as it can, and waits for who unloads.
        waits_for(&node, "load.lock");
        inside(&|| {
            netplug::datapath::unload(&lock).unwrap();
            netplug::node::state::restore().unwrap();
        });
        drop(lock);
        adding.join().unwrap()
    });
    node.check(&web).unwrap();
    for family in Family::BOTH {
        ping(web.namespace(), GATEWAY.ip(family), 77, 64, PATIENCE).unwrap();
    }
}
