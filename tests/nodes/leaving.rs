//! Which of the node's addresses pods leave as: the one that the host itself would send from, and it stays.

use std::net::{IpAddr, SocketAddr};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE, SERVICE, cluster_cidr};
use netplug_tests::eventually::{SOON, becomes, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::traffic::IMPATIENCE;
use netplug_tests::traffic::Protocol::{Tcp, Udp};
use rstest::rstest;
use serde_json::json;

use crate::scene::PORT;

const REQUESTS: usize = 10;

fn outside(ip: Family) -> SocketAddr {
    SocketAddr::new(OUTSIDE.ip(ip), PORT)
}

/// As whom the outside sees a pod.
fn seen_as(pod: &Pod, ip: Family) -> IpAddr {
    let dial = pod.dial(outside(ip)).patience(IMPATIENCE);
    eventually(SOON, || dial.ask(Udp, "as whom?")).client_ip()
}

/// An address on lo that the outside knows the way to, as nodes have it that speak BGP.
fn address_of_lo(node: &Node, ip: Family) -> IpAddr {
    let (address, prefix) = match ip {
        V4 => (IpAddr::from([198, 51, 100, 7]), 32),
        V6 => (IpAddr::from([0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 7]), 128),
    };
    let nodad = if ip == V4 { "" } else { "nodad" };
    node.namespace().run(&format!("ip address add {address}/{prefix} dev lo {nodad}"));
    let way = format!("ip route add {address}/{prefix} via {}", NODE_1.ip(ip));
    node.outside().namespace().run(&way);
    address
}

/// Has the default route be one of the `rest`.
fn lead_out(node: &Node, ip: Family, rest: &str) {
    let flag = if ip == V4 { "-4" } else { "-6" };
    node.namespace().run(&format!("ip {flag} route flush exact default"));
    if !rest.is_empty() {
        let via = OUTSIDE.ip(ip);
        node.namespace().run(&format!("ip {flag} route add default via {via} dev eth0 {rest}"));
    }
}

#[rstest]
fn an_address_of_lo_stays_while_the_default_route_is_away(
    #[values(V4, V6)] ip: Family,
    #[values(false, true)] is_named: bool,
) {
    let network = Network::netplug();
    let network = if is_named { network.with("uplinks", json!(["eth0"])) } else { network };
    let node = Node::with(network);
    node.outside().listen(PORT);
    let own = address_of_lo(&node, ip);
    let by_lo = format!("src {own}");
    lead_out(&node, ip, &by_lo);
    let client = node.add_pod("client");
    let mut talk = client.dial(outside(ip)).open(Tcp).unwrap();
    let seen = talk.ask_times(REQUESTS).unwrap().client;
    assert_eq!(seen.ip(), own);
    for (name, rest) in [("away", ""), ("back", by_lo.as_str())] {
        lead_out(&node, ip, rest);
        node.add_pod(name);
    }
    assert_eq!(talk.ask_times(REQUESTS).unwrap().client, seen);
    assert_eq!(seen_as(&client, ip), own);
}

#[rstest]
fn a_source_that_the_default_route_names_counts_for_as_long_as_it_does(
    #[values(V4, V6)] ip: Family,
) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let other = address_of_lo(&node, ip);
    let by_lo = format!("src {other}");
    for (name, rest, seen) in [("named", by_lo.as_str(), other), ("not", "metric 5", NODE_1.ip(ip))]
    {
        lead_out(&node, ip, rest);
        node.add_pod(name);
        assert_eq!(seen_as(&client, ip), seen);
    }
}

/// What nobody has on the outside leads nowhere, also what documentation speaks of.
#[rstest]
fn a_node_with_a_list_of_bogons_has_pods_leave_as_itself(
    #[values(V4, V6)] ip: Family,
    #[values(false, true)] is_of_lo: bool,
) {
    let node = Node::new();
    node.outside().listen(PORT);
    let own = match (ip, is_of_lo) {
        (_, true) => address_of_lo(&node, ip),
        (V4, false) => IpAddr::from([192, 0, 2, 77]),
        (V6, false) => IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77]),
    };
    if !is_of_lo {
        let prefix = if ip == V4 { 24 } else { 64 };
        node.namespace().run(&format!("ip address add {own}/{prefix} dev eth0"));
        eventually(SOON, || is_settled(node.namespace()));
    }
    lead_out(&node, ip, &format!("src {own}"));
    let bogon = if ip == V4 { "203.0.113.0/24" } else { "2001:db8:ffff::/48" };
    node.namespace().run(&format!("ip route add blackhole {bogon}"));
    let client = node.add_pod("client");
    assert_eq!(seen_as(&client, ip), own);
}

/// The kernel knows what suits the next hop, and the uplink's first address does not.
#[test]
fn a_node_with_a_list_of_bogons_asks_the_kernel_all_the_same() {
    let node = Node::new();
    node.outside().listen(PORT);
    node.namespace().feed(
        "ip -batch -",
        "address del 192.0.2.1/24 dev eth0\n\
         address add 198.51.100.7/24 dev eth0\n\
         address add 192.0.2.1/24 dev eth0\n\
         route replace default via 192.0.2.2 dev eth0\n\
         route add blackhole 203.0.113.0/24\n",
    );
    let client = node.add_pod("client");
    assert_eq!(seen_as(&client, V4), NODE_1.ip(V4));
}

/// Whether no address of eth0 is tried any more.
fn is_settled(node: &Namespace) -> Result<(), String> {
    let shown = node.run("ip -6 address show dev eth0");
    if shown.contains("tentative") { Err(shown) } else { Ok(()) }
}

/// A node that boots. Nobody answers for the address before duplicate address detection is done.
#[test]
fn the_first_pod_comes_while_the_uplinks_address_is_tentative() {
    let node = Node::new();
    node.outside().listen(PORT);
    let own = format!("{}/64 dev eth0", NODE_1.v6);
    let namespace = node.namespace();
    namespace.set_sysctl("net/ipv6/conf/eth0/accept_dad", "1");
    namespace.set_sysctl("net/ipv6/conf/eth0/dad_transmits", "3");
    namespace.run(&format!("ip address del {own}"));
    namespace.run(&format!("ip address add {own}"));
    lead_out(&node, V6, "metric 5");
    let client = node.add_pod("client");
    eventually(SOON, || is_settled(namespace));
    assert_eq!(seen_as(&client, V6), NODE_1.ip(V6));
}

/// The kernel would rather send from any other, and the pods' gateway has one, be it a bridge or each pod's host end.
#[rstest]
fn an_address_that_is_deprecated_is_the_last_one(
    #[values("alone", "bridge", "ptp")] way: &str,
    #[values(false, true)] lo_has_another: bool,
) {
    let node = Node::new();
    node.outside().listen(PORT);
    let own = format!("{}/64 dev eth0", NODE_1.v6);
    node.namespace().run(&format!("ip address change {own} preferred_lft 0 valid_lft forever"));
    let wanted = if lo_has_another { address_of_lo(&node, V6) } else { NODE_1.ip(V6) };
    let client = match way {
        "alone" => node.add_pod("client"),
        after => node.add_pod_chained("client", after),
    };
    assert_eq!(seen_as(&client, V6), wanted);
}

fn link_local(namespace: &Namespace) -> String {
    let shown = namespace.run("ip -6 -brief address show dev eth0 scope link");
    let address = shown.split_whitespace().find(|word| word.starts_with("fe80:"));
    address.and_then(|network| network.split('/').next()).expect("it has one").to_owned()
}

/// A node whose uplink has link-local addresses only, by which the outside knows the way to it.
fn unnumbered() -> Node {
    let node = Node::new();
    node.outside().listen(PORT);
    let (inner, outer) = (link_local(node.namespace()), link_local(node.outside().namespace()));
    node.namespace().run(&format!("ip address del {}/64 dev eth0", NODE_1.v6));
    node.namespace().run("ip -6 route flush exact default");
    node.namespace().run(&format!("ip route add {} via {outer} dev eth0", OUTSIDE.v6));
    node.namespace().run(&format!("ip route add default via {outer} dev eth0"));
    for to in [cluster_cidr(V6), "2001:db8::/32"] {
        let way = format!("ip route replace {to} via {inner} dev eth0");
        node.outside().namespace().run(&way);
    }
    node
}

/// Those of pods' bridges and of services, which kube-proxy has on an interface of its own in ipvs mode, are none.
#[test]
fn pods_leave_as_themselves_where_the_node_has_link_local_addresses_only() {
    let node = unnumbered();
    node.namespace().feed(
        "ip -batch -",
        &format!(
            "link add kube-ipvs0 type bridge\n\
             address add {}/128 dev kube-ipvs0 nodad\n\
             link set kube-ipvs0 up\n",
            SERVICE.v6
        ),
    );
    let client = node.add_pod("client");
    assert_eq!(seen_as(&client, V6), client.ip(V6));
}

/// The kernel would choose the newest.
#[test]
fn an_uplink_without_addresses_keeps_the_one_that_pods_left_as() {
    let node = unnumbered();
    node.namespace().run("ip address add 2001:db8:77::7/128 dev lo nodad");
    let client = node.add_pod("client");
    let mut talk = client.dial(outside(V6)).open(Tcp).unwrap();
    let seen = talk.ask_times(REQUESTS).unwrap().client;
    assert_eq!(seen.ip().to_string(), "2001:db8:77::7");
    node.namespace().run("ip address add 2001:db8:78::7/128 dev lo nodad");
    let _late = node.add_pod("late");
    assert_eq!(talk.ask_times(REQUESTS).unwrap().client, seen);
}

/// A DHCP client takes the address and gives it again, where no route of the main table tells which: what the kernel would send from
/// meanwhile is another interface's.
#[test]
fn an_uplink_that_gets_its_address_again_has_pods_leave_as_it() {
    let node = Node::with(Network::netplug().with("uplinks", json!(["eth0"])));
    node.outside().listen(PORT);
    node.namespace().run("ip link add docker0 type bridge");
    node.namespace().run("ip link set docker0 up");
    node.namespace().run("ip address add 172.17.0.1/16 dev docker0");
    let client = node.add_pod("client");
    node.namespace().run("ip -4 address flush dev eth0 scope global");
    let _meanwhile = node.add_pod("meanwhile");
    node.namespace().run(&format!("ip address add {}/24 dev eth0", NODE_1.v4));
    let _late = node.add_pod("late");
    assert_eq!(seen_as(&client, V4), NODE_1.ip(V4));
}

/// Of a network that names its uplinks, and of one that does not, and comes while nothing tells which they are.
#[rstest]
fn uplinks_that_were_named_are_left_once_there_is_a_default_route(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.outside().listen(PORT);
    node.namespace().run("ip link add spare type veth peer name other");
    let named = Network::netplug().with("uplinks", json!(["eth0", "spare"]));
    let client = node.add_pod_to("client", &named);
    let uplinks = || node.netplug_json("masquerade show")["masquerade"]["uplinks"].to_string();
    for family in Family::BOTH {
        lead_out(&node, family, "");
    }
    let _late = node.add_pod("late");
    assert_eq!(seen_as(&client, ip), NODE_1.ip(ip));
    assert!(uplinks().contains("spare"), "{}", uplinks());
    lead_out(&node, ip, "metric 5");
    let _later = node.add_pod("later");
    assert_eq!(seen_as(&client, ip), NODE_1.ip(ip));
    assert!(!uplinks().contains("spare"), "{}", uplinks());
}

/// The same, found by who watches, and whatever becomes of the route since.
#[rstest]
fn who_watches_finds_the_default_route_that_comes_after_named_uplinks(
    #[values(V4, V6)] ip: Family,
) {
    let node = Node::new();
    node.outside().listen(PORT);
    node.namespace().run("ip link add spare type veth peer name other");
    let _named = node.add_pod_to("named", &Network::netplug().with("uplinks", json!(["spare"])));
    for family in Family::BOTH {
        lead_out(&node, family, "");
    }
    let client = node.add_pod("client");
    let _watcher = node.watch("");
    let uplinks = || {
        let shown = node.netplug_json("masquerade show");
        let of = shown["masquerade"]["uplinks"].as_array().cloned().unwrap_or_default();
        of.iter().map(|uplink| uplink["interface"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(uplinks(), ["spare"]);
    // It goes, and comes again.
    node.namespace().run("ip link del spare");
    becomes(SOON, vec![], uplinks);
    node.namespace().run("ip link add spare type veth peer name other");
    becomes(SOON, vec!["spare".to_owned()], uplinks);
    lead_out(&node, ip, "metric 5");
    becomes(SOON, vec!["eth0".to_owned()], uplinks);
    assert_eq!(seen_as(&client, ip), NODE_1.ip(ip));
    lead_out(&node, ip, "");
    let _late = node.add_pod("late");
    assert_eq!(uplinks(), ["eth0"]);
}

/// `net.ipv4.conf.default.forwarding` is for devices that come since.
#[test]
fn an_uplink_that_came_since_the_node_forwards_does_so_too() {
    let node = Node::new();
    node.namespace().set_sysctl("net/ipv4/ip_forward", "1");
    node.namespace().set_sysctl("net/ipv4/conf/eth0/forwarding", "0");
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    assert_eq!(seen_as(&client, V4), NODE_1.ip(V4));
    node.del_pod(client);
    node.netplug("unload");
    assert_eq!(node.namespace().sysctl("net/ipv4/conf/eth0/forwarding").as_deref(), Some("0"));
}
