//! The fault that netplug exists for, shown on Debian's plugins alone, so that the tests of netplug mean something.

use netplug_tests::cast::{Family, NODE_1, SERVICE};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{self, Service};
use netplug_tests::traffic::{IMPATIENCE, Protocol};
use rstest::rstest;
use std::net::SocketAddr;

use Family::{V4, V6};

/// How kube-proxy writes its rules.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Iptables,
    Nftables,
}

fn node_with_a_service(ip: Family, mode: Mode) -> (Node, Pod, Pod) {
    let node = Node::with(Network::bridge());
    let web = node.add_pod("web").listening(8080);
    let client = node.add_pod("client");
    let mut services = Service::both(80, &[web.at(ip, 8080)]);
    services[0].node_port = Some(30080);
    match mode {
        Mode::Iptables => rules::serve(node.namespace(), &services),
        Mode::Nftables => rules::serve_by_nftables(node.namespace(), &services),
    }
    (node, web, client)
}

#[rstest]
fn without_netplug_a_service_on_the_same_node_fails(
    #[values(V4, V6)] ip: Family,
    #[values(Protocol::Tcp, Protocol::Udp)] protocol: Protocol,
    #[values(Mode::Iptables, Mode::Nftables)] mode: Mode,
) {
    let (node, _web, client) = node_with_a_service(ip, mode);
    assert!(node.bridge_netfilter(false));
    let service = SocketAddr::new(SERVICE.ip(ip), 80);
    let error = client.dial(service).patience(IMPATIENCE).ask(protocol, "hello").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[rstest]
fn bridge_netfilter_makes_it_work(
    #[values(V4, V6)] ip: Family,
    #[values(Protocol::Tcp, Protocol::Udp)] protocol: Protocol,
    #[values(Mode::Iptables, Mode::Nftables)] mode: Mode,
) {
    let (node, web, client) = node_with_a_service(ip, mode);
    assert!(node.bridge_netfilter(true), "this kernel has no br_netfilter");
    let service = SocketAddr::new(SERVICE.ip(ip), 80);
    let answer = client.dial(service).ask(protocol, "hello").unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), ("web", client.ip(ip)));
    let itself = web.dial(service).ask(protocol, "hello").unwrap();
    assert_eq!(itself.server, "web");
    assert_ne!(itself.client_ip(), web.ip(ip));
    let node_port = SocketAddr::new(NODE_1.ip(ip), 30080);
    let outside = node.outside().dial(node_port).ask(Protocol::Tcp, "hello").unwrap();
    assert_eq!(outside.server, "web");
}
