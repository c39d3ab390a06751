//! `netplug watch`: a node that changes between ADDs.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE, pod_cidr};
use netplug_tests::eventually::{SOON, becomes, eventually};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::{Tcp, Udp};
use netplug_tests::traffic::{Dial, IMPATIENCE};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::masquerade::{second_router, second_uplink, texts};
use crate::scene::{PORT, with_host_ports};

const REQUESTS: usize = 30;

fn outside(ip: Family) -> SocketAddr {
    SocketAddr::new(OUTSIDE.ip(ip), PORT)
}

/// The node's next address.
fn next(ip: Family) -> IpAddr {
    match ip {
        V4 => IpAddr::from([192, 0, 2, 77]),
        V6 => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77]),
    }
}

/// Adds an address to the node's uplink, or takes one from it, and sees to the default route, as a DHCP client would.
fn change(node: &Node, verb: &str, address: IpAddr) {
    let node = node.namespace();
    let v4 = address.is_ipv4();
    let ip = Family::of(address);
    let nodad = if v4 || verb == "del" { "" } else { "nodad" };
    node.run(&format!("ip address {verb} {address}/{} dev eth0 {nodad}", if v4 { 24 } else { 64 }));
    if verb == "add" {
        node.run(&format!("ip route replace default via {}", OUTSIDE.ip(ip)));
    }
}

/// The uplink's addresses of a family, as pods leave as.
fn leaves_as(node: &Node, interface: &str, ip: Family) -> Vec<IpAddr> {
    let shown = node.netplug_json("masquerade show");
    let uplinks = shown["masquerade"]["uplinks"].as_array().map(Vec::as_slice).unwrap_or_default();
    uplinks
        .iter()
        .filter(|uplink| uplink["interface"] == interface)
        .flat_map(|uplink| texts(&uplink["addresses"]))
        .filter_map(|address| address.parse().ok())
        .filter(|address| Family::of(*address) == ip)
        .collect()
}

fn exempt(node: &Node) -> Value {
    let shown = node.netplug_json("masquerade show");
    let mut cidrs = texts(&shown["masquerade"]["non_masquerade_cidrs"]);
    cidrs.retain(|cidr| cidr != pod_cidr(V4) && cidr != pod_cidr(V6));
    cidrs.into()
}

#[rstest]
fn flows_leave_by_the_address_that_the_uplink_has_now(
    #[values(V4, V6)] ip: Family,
    #[values(true, false)] is_removed_first: bool,
) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let _watcher = node.watch("");
    let mut old = client.dial(outside(ip)).open(Udp).unwrap();
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), NODE_1.ip(ip));
    // One that nobody refreshes.
    client.dial(outside(ip)).ask(Udp, "once").unwrap();
    let mut steps = [("del", NODE_1.ip(ip)), ("add", next(ip))];
    if !is_removed_first {
        // The kernel takes IPv4 addresses of one network with their first, unless told otherwise.
        node.namespace().set_sysctl("net/ipv4/conf/eth0/promote_secondaries", "1");
        steps.reverse();
    }
    for (verb, address) in steps {
        change(&node, verb, address);
    }
    if ip == V4 {
        node.namespace().run(&format!("ip route replace default via {}", OUTSIDE.ip(ip)));
    }
    becomes(SOON, vec![next(ip)], || leaves_as(&node, "eth0", ip));
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), next(ip));
    for protocol in [Tcp, Udp] {
        let mut talk = client.dial(outside(ip)).open(protocol).unwrap();
        assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), next(ip));
    }
    let nat = node.netplug_json("nat");
    let mappings = nat["mappings"].as_array().unwrap();
    let seen = mappings.iter().map(|mapping| mapping["seen_as"].as_str().unwrap());
    let seen: Vec<_> = seen.map(|seen| seen.parse::<SocketAddr>().unwrap().ip()).collect();
    assert!(seen.len() == 3 && seen.iter().all(|seen| *seen == next(ip)), "{nat}");
}

/// Whom it was with knows nothing of it by another address, and says so: nobody waits in vain.
#[rstest]
fn a_connection_ends_when_its_address_is_another(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let _watcher = node.watch("");
    let mut old = client.dial(outside(ip)).open(Tcp).unwrap();
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), NODE_1.ip(ip));
    change(&node, "del", NODE_1.ip(ip));
    change(&node, "add", next(ip));
    becomes(SOON, vec![next(ip)], || leaves_as(&node, "eth0", ip));
    assert_eq!(old.ask("still?").unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut new = client.dial(outside(ip)).open(Tcp).unwrap();
    assert_eq!(new.ask_times(REQUESTS).unwrap().client_ip(), next(ip));
}

/// The node's own processes are told of its addresses beforehand.
#[rstest]
fn a_host_port_is_called_by_an_address_that_came_later(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    let network = with_host_ports(node.network().clone(), &[(9_000, PORT)]);
    let _web = node.add_pod_to("web", &network).listening(PORT);
    let _watcher = node.watch("");
    change(&node, "add", next(ip));
    let to = SocketAddr::new(next(ip), 9_000);
    for protocol in [Tcp, Udp] {
        let own = || Dial::new(node.namespace(), to).patience(IMPATIENCE).ask(protocol, "who?");
        assert_eq!(eventually(SOON, own).server, "web");
        assert_eq!(node.outside().dial(to).ask(protocol, "who?").unwrap().server, "web");
    }
}

/// Nor is one that the kernel lists first, as it does with IPv6.
#[rstest]
fn a_second_address_is_no_change(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let _watcher = node.watch("");
    let mut old = client.dial(outside(ip)).open(Tcp).unwrap();
    old.ask_times(REQUESTS).unwrap();
    change(&node, "add", next(ip));
    // Whatever was told of the address was told before this.
    second_uplink(&node, ip);
    node.namespace().run(&format!("ip route add default via {} metric 5000", second_router(ip)));
    becomes(SOON, 1, || leaves_as(&node, "eth1", ip).len());
    assert_eq!(leaves_as(&node, "eth0", ip), [NODE_1.ip(ip)]);
    let _late = node.add_pod("late");
    assert_eq!(leaves_as(&node, "eth0", ip), [NODE_1.ip(ip)]);
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), NODE_1.ip(ip));
}

/// A DHCP client, or who restarts the network, takes all and gives it again. What is another interface's is never left as, and
/// what has begun meanwhile goes on once duplicate address detection is done.
#[rstest]
fn an_address_that_is_taken_and_given_again_is_the_same(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let _watcher = node.watch("");
    becomes(SOON, vec![NODE_1.ip(ip)], || leaves_as(&node, "eth0", ip));
    let namespace = node.namespace();
    namespace.set_sysctl("net/ipv6/conf/eth0/accept_dad", "1");
    let (flag, prefix) = if ip == V4 { ("-4", 24) } else { ("-6", 64) };
    namespace.run(&format!("ip {flag} address flush dev eth0 scope global"));
    becomes(SOON, vec![], || leaves_as(&node, "eth0", ip));
    namespace.run(&format!("ip address add {}/{prefix} dev eth0", NODE_1.ip(ip)));
    becomes(SOON, vec![NODE_1.ip(ip)], || leaves_as(&node, "eth0", ip));
    namespace.run(&format!("ip {flag} route replace default via {}", OUTSIDE.ip(ip)));
    let dial = client.dial(outside(ip)).patience(IMPATIENCE);
    let mut talk = eventually(SOON, || dial.open(Tcp));
    let seen = talk.ask_times(REQUESTS).unwrap().client;
    assert_eq!(seen.ip(), NODE_1.ip(ip));
    becomes(SOON, false, || namespace.run("ip address show dev eth0").contains("tentative"));
    let _late = node.add_pod("late");
    assert_eq!(talk.ask_times(REQUESTS).unwrap().client, seen);
}

#[rstest]
fn an_uplink_is_taken_on_and_dropped_as_it_comes_and_goes(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let _watcher = node.watch("");
    let own = second_uplink(&node, ip);
    let via = second_router(ip);
    node.namespace().run(&format!("ip route add default via {via} metric 5000"));
    becomes(SOON, vec![own], || leaves_as(&node, "eth1", ip));
    node.namespace().run(&format!("ip route add {} via {via} metric 1", OUTSIDE.ip(ip)));
    node.netplug("flush");
    for protocol in [Tcp, Udp] {
        let mut talk = client.dial(outside(ip)).open(protocol).unwrap();
        assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), own);
    }
    node.namespace().run("ip link del eth1");
    becomes(SOON, 1, || node.netplug_json("status")["uplinks"].as_array().unwrap().len());
    assert_eq!(client.dial(outside(ip)).ask(Tcp, "who?").unwrap().client_ip(), NODE_1.ip(ip));
}

/// Nothing else is told that would have the node looked at.
#[rstest]
fn a_default_route_alone_makes_an_uplink(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.netplug("load");
    let own = second_uplink(&node, ip);
    becomes(SOON, true, || node.namespace().run("ip link show eth1").contains("state UP"));
    // Its link-local address is still being tried, which would be told.
    node.namespace().run("ip address flush dev eth1 scope link");
    let _watcher = node.watch("");
    // It listened before it looked.
    becomes(SOON, vec![NODE_1.ip(ip)], || leaves_as(&node, "eth0", ip));
    let via = second_router(ip);
    node.namespace().run(&format!("ip route add default via {via} metric 5000"));
    becomes(SOON, vec![own], || leaves_as(&node, "eth1", ip));
}

#[test]
fn named_uplinks_stay_those_that_are_named() {
    let node = Node::with(Network::netplug().with("uplinks", json!(["eth0"])));
    let _web = node.add_pod("web");
    let _watcher = node.watch("");
    second_uplink(&node, V4);
    node.namespace().run(&format!("ip route add default via {} metric 5000", second_router(V4)));
    change(&node, "del", NODE_1.ip(V4));
    change(&node, "add", next(V4));
    becomes(SOON, vec![next(V4)], || leaves_as(&node, "eth0", V4));
    assert_eq!(leaves_as(&node, "eth1", V4), [] as [IpAddr; 0]);
}

#[test]
fn a_file_that_changes_counts_at_once_and_a_bad_one_does_not() {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let mut old = client.dial(outside(V4)).open(Udp).unwrap();
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), NODE_1.ip(V4));
    node.namespace().run("mkdir /run/agent");
    let watcher = node.watch("--masquerade-file /run/agent/config");
    // There is none yet.
    let agent = json!(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]);
    becomes(SOON, agent, || exempt(&node));
    let write = |text: &str| node.namespace().feed("tee /run/agent/config", text);
    write("nonMasqueradeCIDRs: [192.0.2.0/24]\n");
    becomes(SOON, json!(["192.0.2.0/24"]), || exempt(&node));
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), client.ip(V4));
    write("nonMasqueradeCIDRs: [10.0.0.0/8, 10.1.0.0/8]\n");
    watcher.says("/run/agent/config: nonMasqueradeCIDRs: 10.1.0.0/8 has host bits set");
    assert_eq!(exempt(&node), json!(["192.0.2.0/24"]));
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), client.ip(V4));
    write("nonMasqueradeCIDRs: [10.0.0.0/8]\nmasqLinkLocal: true\n");
    becomes(SOON, json!(["10.0.0.0/8"]), || exempt(&node));
    assert_eq!(node.netplug_json("masquerade show")["masquerade"]["masq_link_local"], true);
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), NODE_1.ip(V4));
}

/// kubelet writes a volume's files into a new folder, and has one link lead there.
#[test]
fn a_file_of_a_volume_that_is_swapped_is_read_again() {
    let node = Node::new();
    let _web = node.add_pod("web");
    let volume = |version: &str, cidr: &str| {
        let folder = format!("/run/volume/..{version}");
        node.namespace().run(&format!("mkdir -p {folder}"));
        let text = format!("nonMasqueradeCIDRs: [{cidr}]\n");
        node.namespace().feed(&format!("tee {folder}/config"), &text);
        node.namespace().run(&format!("ln -s ..{version} /run/volume/..data_tmp"));
        node.namespace().run("mv -T /run/volume/..data_tmp /run/volume/..data");
    };
    volume("1", "192.0.2.0/24");
    node.namespace().run("ln -s ..data/config /run/volume/config");
    let _watcher = node.watch("--masquerade-file /run/volume/config");
    becomes(SOON, json!(["192.0.2.0/24"]), || exempt(&node));
    volume("2", "198.51.100.0/24");
    becomes(SOON, json!(["198.51.100.0/24"]), || exempt(&node));
}

/// Where nothing tells of the change: the file itself lies elsewhere, and the file's own interval is short.
#[test]
fn a_file_is_read_again_at_its_own_interval() {
    let node = Node::new();
    let _web = node.add_pod("web");
    let write = |cidr: &str| {
        let text = format!("nonMasqueradeCIDRs: [{cidr}]\nresyncInterval: 1s\n");
        node.namespace().run("mkdir -p /run/elsewhere /run/agent");
        node.namespace().feed("tee /run/elsewhere/config", &text);
    };
    write("192.0.2.0/24");
    node.namespace().run("ln -s /run/elsewhere/config /run/agent/config");
    let _watcher = node.watch("--masquerade-file /run/agent/config");
    becomes(SOON, json!(["192.0.2.0/24"]), || exempt(&node));
    write("198.51.100.0/24");
    becomes(SOON, json!(["198.51.100.0/24"]), || exempt(&node));
}

#[rstest]
fn a_watch_ends_when_it_is_told_to(#[values(Signal::TERM, Signal::INT)] signal: Signal) {
    let node = Node::new();
    node.namespace().feed("tee /run/agent", "resyncInterval: now\n");
    let watcher = node.watch("--masquerade-file /run/agent");
    // By now it listens to signals.
    watcher.says("resyncInterval: \"now\"");
    assert!(watcher.end_by(signal).success());
}
