//! What the host's own NAT sends by an address and a port of the node which are a HostPort, too: conntrack knows whose the
//! answers are.

use std::net::SocketAddr;

use netplug_common::decide::mapping_life::Lifetimes;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE, SERVICE};
use netplug_tests::mappings;
use netplug_tests::node::Node;
use netplug_tests::packet::{self, eth, payload, udp};
use netplug_tests::pod::Pod;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Dial, send_frame};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Learn};
use crate::scene::{PORT, with_host_ports};

const fn table(ip: Family) -> &'static str {
    match ip {
        V4 => "ip",
        V6 => "ip6",
    }
}

/// A node whose HostPort `port` is of the pod that is returned.
fn node_and_web(steering: Steering, has_masquerade: bool, port: u16) -> (Node, Pod) {
    let network = steering.network().with("masquerade", has_masquerade);
    let node = Node::with(network.clone());
    node.outside().listen(PORT);
    let web = node.add_pod_to("web", &with_host_ports(network, &[(port, PORT)])).listening(PORT);
    (node, web)
}

fn masquerade(node: &Node, ip: Family) {
    let table = table(ip);
    let rules = format!(
        "add table {table} masq
         add chain {table} masq out {{ type nat hook postrouting priority 100; }}
         add rule {table} masq out oifname eth0 masquerade
"
    );
    node.namespace().feed("nft -f -", &rules);
}

/// The port: one that netplug's masquerade may give, too; one of the ephemeral; and a NodePort.
#[rstest]
fn answers_to_what_it_masquerades_are_no_calls(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values((false, 9_000), (true, 9_000), (true, 40_000), (true, 30_500))] masquerade_and_port: (
        bool,
        u16,
    ),
    #[values(Learn, Always)] steering: Steering,
) {
    let (has_masquerade, port) = masquerade_and_port;
    let (node, _web) = node_and_web(steering, has_masquerade, port);
    masquerade(&node, ip);
    let client = node.add_pod("client");
    let dial = client.dial(SocketAddr::new(OUTSIDE.ip(ip), PORT)).from_port(port);
    let mut talk = dial.open(protocol).unwrap();
    let answer = talk.ask_times(20).unwrap();
    let seen = SocketAddr::new(NODE_1.ip(ip), port);
    assert_eq!((answer.server.as_str(), answer.client), (OUTSIDE.name, seen));
}

/// Without netplug's masquerade nobody else puts off the end of what the host holds.
#[rstest]
fn what_it_masquerades_goes_on_while_only_the_outside_speaks(#[values(V4, V6)] ip: Family) {
    let (node, _web) = node_and_web(Always, false, 9_000);
    masquerade(&node, ip);
    let client = node.add_pod("client");
    let dial = client.dial(SocketAddr::new(OUTSIDE.ip(ip), PORT)).from_port(9_000);
    let mut talk = dial.open(Udp).unwrap();
    talk.ask_times(2).unwrap();
    let frame = eth(OUTSIDE, NODE_1) / packet::ip(ip, OUTSIDE, NODE_1) / udp(PORT, 9_000);
    let frame = frame / payload(b"unasked\n");
    for _ in 0..3 {
        mappings::age(node.namespace(), Lifetimes::DEFAULT.udp_stream * 2 / 3);
        send_frame(node.outside().namespace(), "eth0", &frame.bytes()).unwrap();
        assert_eq!(talk.hear_line().unwrap(), "unasked\n");
    }
}

/// A process of the node calls a service whose endpoint is elsewhere: its socket is connected to the service, and no socket to the
/// endpoint.
#[rstest]
fn answers_to_the_nodes_calls_of_a_service_are_no_calls(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values((false, 9_000), (true, 9_000), (true, 40_000))] masquerade_and_port: (bool, u16),
) {
    let (has_masquerade, port) = masquerade_and_port;
    let (node, _web) = node_and_web(Learn, has_masquerade, port);
    let (table, service) = (table(ip), SERVICE.ip(ip));
    let rules = format!(
        "add table {table} svc
         add chain {table} svc out {{ type nat hook output priority -100; }}
         add rule {table} svc out meta l4proto {{ tcp, udp }} {table} daddr {service} dnat to {}
",
        SocketAddr::new(OUTSIDE.ip(ip), PORT)
    );
    node.namespace().feed("nft -f -", &rules);
    let dial = Dial::new(node.namespace(), SocketAddr::new(service, 80)).from_port(port);
    let answer = dial.open(protocol).and_then(|mut talk| talk.ask_times(20)).unwrap();
    assert_eq!((answer.server.as_str(), answer.client.port()), (OUTSIDE.name, port));
}
