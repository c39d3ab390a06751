//! The host's ephemeral ports become others while ports among them are in use.

use std::net::SocketAddr;

use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE};
use netplug_tests::node::Node;
use netplug_tests::traffic::Dial;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;

use crate::scene::Steering::{Always, Learn};
use crate::scene::{PORT, with_host_ports};

/// An ADD tells the programs of them.
fn widen(node: &Node) {
    node.namespace().set_sysctl("net/ipv4/ip_local_port_range", "15000 60999");
    node.add_pod("other");
}

#[rstest]
fn what_is_masqueraded_by_one_of_them_goes_on(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::with(Learn.network());
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let dial = client.dial(SocketAddr::new(OUTSIDE.ip(ip), PORT)).from_port(20_000);
    let mut talk = dial.open(protocol).unwrap();
    talk.ask_times(20).unwrap();
    widen(&node);
    talk.ask_times(20).unwrap();
}

#[rstest]
fn a_host_port_among_them_stays_open(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::with(Learn.network());
    let network = with_host_ports(Learn.network(), &[(20_000, PORT)]);
    let _web = node.add_pod_to("web", &network).listening(PORT);
    let dial = || node.outside().dial(SocketAddr::new(NODE_1.ip(ip), 20_000));
    assert_eq!(dial().ask(protocol, "who?").unwrap().server, "web");
    widen(&node);
    assert_eq!(dial().ask(protocol, "who?").unwrap().server, "web");
}

/// The host may choose the port of a pod's connection now, as it may any other: neither loses its own.
#[rstest]
fn the_hosts_call_by_a_port_that_a_pod_has_leaves_both_their_connections(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::with(Learn.network());
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pods = client.dial(to).from_port(20_000).open(protocol).unwrap();
    pods.ask_times(20).unwrap();
    widen(&node);
    let mut hosts = Dial::new(node.namespace(), to).from_port(20_000).open(protocol).unwrap();
    for talk in [&mut hosts, &mut pods] {
        talk.ask_times(5).unwrap();
    }
}

#[rstest]
fn a_mapping_by_one_of_them_heals(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Table::NatIn, Table::NatOut)] half: Table,
) {
    let node = Node::with(Always.network());
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let dial = client.dial(SocketAddr::new(OUTSIDE.ip(ip), PORT)).from_port(20_000);
    let mut talk = dial.open(protocol).unwrap();
    talk.ask_times(5).unwrap();
    widen(&node);
    for _ in 0..5 {
        half.forget(node.namespace(), 1, &mut 1);
        assert_eq!(talk.ask("again").unwrap().client.port(), 20_000);
    }
}
