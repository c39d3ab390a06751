//! Whom the outside sees: as networks ask for it, and as an operator has it while the node runs.

use std::net::{IpAddr, SocketAddr};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NODE_1, OUTSIDE, pod_cidr};
use netplug_tests::counters::Counters;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::Servers;
use rstest::rstest;
use serde_json::{Value, json};

use crate::scene::PORT;
use crate::scene::Steering::{self, Always, Learn};

const REQUESTS: usize = 30;
/// The outside host's networks, as `netplug masquerade set` takes them.
const OUTSIDE_CIDRS: &str =
    "--non-masquerade-cidr 192.0.2.0/24 --non-masquerade-cidr 2001:db8:1::/64";

fn asking(masquerade: Value) -> Network {
    Network::netplug().with("masquerade", masquerade)
}

fn outside(ip: Family) -> SocketAddr {
    SocketAddr::new(OUTSIDE.ip(ip), PORT)
}

fn shown(node: &Node) -> Value {
    node.netplug_json("masquerade show")["masquerade"].clone()
}

fn exempt(node: &Node) -> Vec<String> {
    texts(&shown(node)["non_masquerade_cidrs"])
}

/// The texts of a list; none of what is no list.
pub fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[track_caller]
fn assert_exempt(node: &Node, wanted: &[&str]) {
    let mut wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    wanted.extend([pod_cidr(V4), pod_cidr(V6)].map(String::from));
    wanted.sort();
    let mut found = exempt(node);
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
fn well_known_lists_go_by_their_names() {
    let names = json!({"nonMasqueradeCIDRs": ["ip-masq-agent", "198.51.100.0/24"]});
    let node = Node::with(asking(names));
    let _web = node.add_pod("web");
    let agent = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
    assert_exempt(&node, &[&agent[..], &["198.51.100.0/24"]].concat());
    let kubenet = asking(json!({"nonMasqueradeCIDRs": ["kubenet"]}));
    let _client = node.add_pod_to("client", &kubenet);
    assert_exempt(&node, &["10.0.0.0/8", "fc00::/7"]);
}

#[rstest]
#[case(json!({"nonMasqueradeCIDRs": ["gke"]}), "gke")]
#[case(json!({"nonMasqueradeCIDRs": ["10.1.0.0/8"]}), "10.0.0.0/8")]
#[case(json!({"masqLinkLocal": "yes"}), "masqLinkLocal")]
fn what_cannot_be_is_named(#[case] masquerade: Value, #[case] named: &str) {
    let node = Node::new();
    let error = node.try_add_pod("web", &asking(masquerade)).unwrap_err();
    assert!(error.code == 7 && error.msg.contains(named), "{error}");
    node.assert_clean();
}

/// New flows, and open ones of UDP: learned ones ask again.
#[rstest]
fn what_is_set_counts_at_once(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let mut old = client.dial(outside(ip)).open(Udp).unwrap();
    let steps = [
        (OUTSIDE_CIDRS, client.ip(ip)),
        ("--reset", NODE_1.ip(ip)),
        ("--off", client.ip(ip)),
        ("--on", NODE_1.ip(ip)),
        ("--reset --non-masquerade-cidr 0.0.0.0/0 --non-masquerade-cidr ::/0", client.ip(ip)),
        ("--non-masquerade-cidr kubenet", NODE_1.ip(ip)),
    ];
    assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), NODE_1.ip(ip));
    for (line, seen) in steps {
        node.netplug(&format!("masquerade set {line}"));
        assert_eq!(old.ask_times(REQUESTS).unwrap().client_ip(), seen, "{line}");
        for protocol in [Tcp, Udp] {
            let mut talk = client.dial(outside(ip)).open(protocol).unwrap();
            assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), seen, "{line}");
        }
    }
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// As with the kernel's NAT, which asks its rules once for each connection. Whoever speaks first.
#[rstest]
fn open_connections_stay_as_they_began(
    #[values(V4, V6)] ip: Family,
    #[values(false, true)] is_exempt_first: bool,
) {
    let node = Node::new();
    let servers = Servers::default();
    servers.start(node.outside().namespace(), "outside", outside(ip));
    let client = node.add_pod("client");
    let web = node.add_pod("web").listening(PORT);
    let mut steps = ["--reset", OUTSIDE_CIDRS, "--reset"];
    let mut seen = [NODE_1.ip(ip), client.ip(ip), NODE_1.ip(ip)];
    if is_exempt_first {
        steps.swap(0, 1);
        seen.swap(0, 1);
    }
    let mut open = Vec::new();
    let mut calls = Vec::new();
    for (line, seen) in steps.into_iter().zip(seen) {
        node.netplug(&format!("masquerade set {line}"));
        for (talk, as_begun) in &mut open {
            let talk: &mut netplug_tests::traffic::Talk = talk;
            assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), *as_begun, "{line}");
        }
        // Called from outside, and told something before the caller says a word.
        assert_eq!(web.servers().speak("news"), calls.len());
        for call in &mut calls {
            let call: &mut netplug_tests::traffic::Talk = call;
            assert_eq!(call.hear_line().unwrap().trim_end(), "news");
            call.ask_times(REQUESTS).unwrap();
        }
        let mut talk = client.dial(outside(ip)).open(Tcp).unwrap();
        assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), seen, "{line}");
        open.push((talk, seen));
        let mut call = node.outside().dial(web.at(ip, PORT)).open(Tcp).unwrap();
        call.ask_times(REQUESTS).unwrap();
        calls.push(call);
    }
}

#[test]
fn what_is_set_outlasts_the_next_add_until_it_is_reset() {
    let node = Node::with(asking(json!({"nonMasqueradeCIDRs": ["10.0.0.0/8"]})));
    node.outside().listen(PORT);
    let _early = node.add_pod("early");
    node.netplug("masquerade set --non-masquerade-cidr 198.51.100.0/24 --masq-link-local");
    node.netplug("masquerade set --off");
    let epoch = || node.netplug_json("status")["epoch"].as_u64().unwrap();
    let before = epoch();
    node.netplug("masquerade set --off");
    assert_eq!(epoch(), before, "it was off");
    let other = asking(json!({"nonMasqueradeCIDRs": ["192.0.2.0/24"], "masqLinkLocalIPv6": true}));
    let late = node.add_pod_to("late", &other);
    assert_exempt(&node, &["198.51.100.0/24"]);
    let found = shown(&node);
    assert_eq!((&found["on"], &found["masq_link_local"]), (&json!(false), &json!(true)));
    // What is not set is the networks'.
    assert_eq!(found["masq_link_local_ipv6"], true);
    let set = json!(["on", "non_masquerade_cidrs", "masq_link_local"]);
    assert_eq!(found["set_at_run_time"], set);
    assert_eq!(late.dial(outside(V4)).ask(Tcp, "who?").unwrap().client_ip(), late.ip(V4));
    node.netplug("masquerade set --reset --masq-link-local-ipv6=false");
    assert_exempt(&node, &["192.0.2.0/24"]);
    let found = shown(&node);
    assert_eq!((&found["on"], &found["masq_link_local"]), (&json!(true), &json!(false)));
    assert_eq!(found["masq_link_local_ipv6"], false);
}

#[test]
fn what_is_set_before_the_first_pod_counts_for_it() {
    let node = Node::new();
    node.netplug("masquerade set --non-masquerade-cidr 198.51.100.0/24");
    let _web = node.add_pod("web");
    assert_exempt(&node, &["198.51.100.0/24"]);
}

/// Of an open connection as of a flow of UDP.
#[rstest]
fn who_called_from_outside_is_answered_by_the_pods_address_whatever_is_set(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let mut talk = node.outside().dial(web.at(ip, PORT)).open(protocol).unwrap();
    // A socket that is connected hears only whom it called.
    talk.ask_times(REQUESTS).unwrap();
    for line in [OUTSIDE_CIDRS, "--reset", "--non-masquerade-cidr ip-masq-agent", "--off", "--on"] {
        node.netplug(&format!("masquerade set {line}"));
        let answer = talk.ask_times(REQUESTS).unwrap();
        assert_eq!((answer.server.as_str(), answer.client_ip()), ("web", OUTSIDE.ip(ip)), "{line}");
    }
}

#[test]
fn a_file_is_taken_whole_or_not_at_all() {
    let node = Node::new();
    let _web = node.add_pod("web");
    let set = |text: &str| {
        node.namespace().feed("tee /run/agent", text);
        node.try_netplug("masquerade set --from /run/agent")
    };
    let good = "nonMasqueradeCIDRs:\n- 198.51.100.0/24\nmasqLinkLocal: true\n";
    assert!(set(good).status.success());
    for (bad, named) in [
        (
            "nonMasqueradeCIDRs: [192.0.2.0/24, 10.1.0.0/8]",
            "nonMasqueradeCIDRs: 10.1.0.0/8 has host bits",
        ),
        ("nonMasqueradeCIDRs: [192.0.2.0/24]\nresyncInterval: soon", "resyncInterval: \"soon\""),
        ("nonMasqueradeCIDRs: [192.0.2.0/24]\nmasqLinkLocal: 7", "masqLinkLocal: 7"),
        ("nonMasqueradeCIDRs: [", "/run/agent"),
    ] {
        let output = set(bad);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{said}");
        assert_exempt(&node, &["198.51.100.0/24"]);
        assert_eq!(shown(&node)["masq_link_local"], true);
    }
    let output = node.try_netplug("masquerade set --non-masquerade-cidr 10.1.0.0/8");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("10.0.0.0/8"), "{said}");
}

/// The address of clouds' metadata servers.
#[test]
fn link_local_addresses_see_the_pod_or_the_node_as_is_set() {
    let node = Node::new();
    let metadata = SocketAddr::new(IpAddr::from([169, 254, 169, 254]), PORT);
    node.outside().namespace().run(&format!("ip address add {}/32 dev lo", metadata.ip()));
    node.namespace().run(&format!("ip route add {} via {}", metadata.ip(), OUTSIDE.ip(V4)));
    let servers = Servers::default();
    servers.start(node.outside().namespace(), "metadata", metadata);
    let client = node.add_pod("client");
    for (line, seen) in [
        ("--reset", client.ip(V4)),
        ("--masq-link-local", NODE_1.ip(V4)),
        ("--masq-link-local=false", client.ip(V4)),
    ] {
        node.netplug(&format!("masquerade set {line}"));
        for protocol in [Tcp, Udp] {
            let mut talk = client.dial(metadata).open(protocol).unwrap();
            assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), seen, "{line}");
        }
    }
}

/// One to the outside, one to the intranet.
#[rstest]
fn a_packet_leaves_as_the_uplink_that_it_leaves_by(#[values(V4, V6)] ip: Family) {
    let node = Node::with(
        asking(json!({"nonMasqueradeCIDRs": []})).with("uplinks", json!(["eth0", "eth1"])),
    );
    node.outside().listen(PORT);
    let own = second_uplink(&node, ip);
    node.namespace().run(&format!("ip route add {} via {}", INTRANET.ip(ip), second_router(ip)));
    let client = node.add_pod("client");
    for protocol in [Tcp, Udp] {
        for (actor, seen) in [(OUTSIDE, NODE_1.ip(ip)), (INTRANET, own), (OUTSIDE, NODE_1.ip(ip))] {
            let to = SocketAddr::new(actor.ip(ip), PORT);
            let mut talk = client.dial(to).from_port(20_000).open(protocol).unwrap();
            assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), seen, "{}", actor.name);
        }
    }
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// Its route may become another while it lives.
#[rstest]
fn a_flow_leaves_as_the_uplink_that_it_leaves_by_now(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let network = asking(json!({"nonMasqueradeCIDRs": []}))
        .with("uplinks", json!(["eth0", "eth1"]))
        .with("steering", steering.name());
    let node = Node::with(network);
    node.outside().listen(PORT);
    let own = second_uplink(&node, ip);
    let client = node.add_pod("client");
    let mut talk = client.dial(outside(ip)).udp().unwrap();
    let route = format!("{} via {}", OUTSIDE.ip(ip), second_router(ip));
    for (change, seen) in [("add", own), ("del", NODE_1.ip(ip)), ("add", own)] {
        node.namespace().run(&format!("ip route {change} {route}"));
        node.netplug("flush");
        assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), seen, "{change}");
    }
}

/// A second cable to the outside host, `eth1`; the node's address there.
pub fn second_uplink(node: &Node, ip: Family) -> IpAddr {
    let prefix = if ip == V4 { 24 } else { 64 };
    let (own, router) = match ip {
        V4 => (IpAddr::from([203, 0, 113, 1]), second_router(V4)),
        V6 => (IpAddr::from([0x2001, 0xdb8, 3, 0, 0, 0, 0, 1]), second_router(V6)),
    };
    node.namespace().feed(
        "ip -batch -",
        &format!(
            "link add eth1 type veth peer name eth1 netns /run/netplug-tests/outside\n\
             address add {own}/{prefix} dev eth1{}\n\
             link set eth1 up\n",
            if ip == V4 { "" } else { " nodad" }
        ),
    );
    node.outside().namespace().feed(
        "ip -batch -",
        &format!(
            "address add {router}/{prefix} dev eth1{}\nlink set eth1 up\n",
            if ip == V4 { "" } else { " nodad" }
        ),
    );
    own
}

/// The outside host at the other end of [`second_uplink`].
pub fn second_router(ip: Family) -> IpAddr {
    match ip {
        V4 => IpAddr::from([203, 0, 113, 2]),
        V6 => IpAddr::from([0x2001, 0xdb8, 3, 0, 0, 0, 0, 2]),
    }
}

/// An IPv6 address that came later and is of a kind that the outside does not know; an IPv4 one of another subnet than the
/// gateway's.
#[rstest]
fn pods_leave_by_the_address_that_the_host_sends_from(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::new();
    let commands = match ip {
        V4 => {
            "address del 192.0.2.1/24 dev eth0\n\
             address add 198.51.100.7/24 dev eth0\n\
             address add 192.0.2.1/24 dev eth0\n\
             route replace default via 192.0.2.2 dev eth0\n"
        }
        V6 => "address add fd77::7/64 dev eth0 nodad\n",
    };
    node.namespace().feed("ip -batch -", commands);
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    assert_eq!(
        client.dial(outside(ip)).ask(protocol, "as whom?").unwrap().client_ip(),
        NODE_1.ip(ip)
    );
}

/// The address is the loopback interface's, as where routing is the host's own (BGP).
#[rstest]
fn an_uplink_may_have_no_address_of_its_own(#[values(Tcp, Udp)] protocol: Protocol) {
    let node = Node::new();
    node.namespace().feed(
        "ip -batch -",
        "address del 192.0.2.1/24 dev eth0\n\
         address add 192.0.2.1/32 dev lo\n\
         route add 192.0.2.2/32 dev eth0 scope link src 192.0.2.1\n\
         route add default via 192.0.2.2 dev eth0 src 192.0.2.1\n",
    );
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let mut talk = client.dial(outside(V4)).open(protocol).unwrap();
    assert_eq!(talk.ask_times(REQUESTS).unwrap().client_ip(), NODE_1.ip(V4));
}
