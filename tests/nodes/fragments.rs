//! Datagrams that are longer than the road takes, to the outside and back.

use std::net::SocketAddr;

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, NODE_1, OUTSIDE};
use netplug_tests::counters::Counters;
use netplug_tests::namespace::Namespace;
use netplug_tests::node::Node;
use netplug_tests::packet::{eth, fragments, ip, payload, udp};
use netplug_tests::pod::Pod;
use netplug_tests::traffic::{PATIENCE, Servers, ping, send_frame};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Learn};
use crate::scene::{PORT, Scene, actor, with_host_ports};

/// A node with rules, so that the host's conntrack puts datagrams together, or one that hands on what comes.
fn client_of(steering: Steering, has_conntrack: bool) -> (Node, Pod) {
    let (node, client) = if has_conntrack {
        let Scene { node, client, .. } = Scene::steered(steering);
        (node, client)
    } else {
        let node = Node::with(steering.network());
        let client = node.add_pod("client");
        (node, client)
    };
    node.outside().listen(PORT);
    (node, client)
}

fn outside(family: Family) -> SocketAddr {
    SocketAddr::new(OUTSIDE.ip(family), PORT)
}

#[rstest]
fn a_large_datagram_leaves_and_its_answer_comes_back(
    #[values(V4, V6)] family: Family,
    #[values(Learn, Always)] steering: Steering,
    #[values(true, false)] has_conntrack: bool,
) {
    let (node, client) = client_of(steering, has_conntrack);
    let mut talk = client.dial(outside(family)).udp().unwrap();
    for size in [1_500, 8_000, 60_000] {
        let answer = talk.ask(&"x".repeat(size)).unwrap();
        assert_eq!(answer.client_ip(), NODE_1.ip(family));
        talk.ask("small").unwrap();
    }
    for size in [1_600, 9_000] {
        ping(client.namespace(), OUTSIDE.ip(family), 3_000, size, PATIENCE).unwrap();
    }
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// Sends a datagram's fragments, the last first.
fn send_backwards(
    namespace: &Namespace,
    interface: &str,
    [from, to]: [(Actor, u16); 2],
    family: Family,
    text: &str,
) {
    let packet =
        eth(from.0, to.0) / ip(family, from.0, to.0) / udp(from.1, to.1) / payload(text.as_bytes());
    for frame in fragments(&packet, 1_024, 0x77).iter().rev() {
        send_frame(namespace, interface, frame).expect("a frame is short");
    }
}

#[rstest]
fn fragments_may_leave_backwards(
    #[values(V4, V6)] family: Family,
    #[values(true, false)] has_conntrack: bool,
) {
    let (node, client) = client_of(Learn, has_conntrack);
    let mut talk = client.dial(outside(family)).from_port(20_000).udp().unwrap();
    talk.ask("one that finds the way").unwrap();
    let before = Counters::of(&node);
    let text = "question ".repeat(500);
    // Whatever MAC it is sent to, it is brought to the gateway.
    let (from, to) = (actor(&client), Actor { mac: actor(&client).mac, ..OUTSIDE });
    let to = Actor { mac: [2, 0, 0, 0, 0, 1], ..to };
    let ends = [(from, 20_000), (to, PORT)];
    send_backwards(client.namespace(), "eth0", ends, family, &format!("{text}\n"));
    assert_eq!(talk.hear().unwrap().text, text);
    let counted = Counters::of(&node).since(&before);
    let kept = if has_conntrack { 0 } else { 4 };
    assert_eq!(counted.get(Counter::FragmentKept), kept);
    assert_eq!(counted.get(Counter::FragmentReleased), kept);
    assert_eq!(counted.drops(), 0);
}

#[rstest]
fn fragments_may_come_backwards(
    #[values(V4, V6)] family: Family,
    #[values(true, false)] has_conntrack: bool,
) {
    let (node, client) = client_of(Learn, has_conntrack);
    let mut talk = client.dial(outside(family)).from_port(20_000).udp().unwrap();
    let seen = talk.ask("one that finds the way").unwrap().client;
    let text = format!("{}\t{seen}\t{}", OUTSIDE.name, "answer ".repeat(500));
    let (from, to) = ((OUTSIDE, PORT), (NODE_1, seen.port()));
    send_backwards(node.outside().namespace(), "eth0", [from, to], family, &text);
    assert_eq!(talk.hear_line().unwrap(), text);
    let counted = Counters::of(&node);
    assert_eq!(counted.get(Counter::FragmentKept), 3);
    assert_eq!(counted.get(Counter::FragmentReleased), 3);
}

/// The host's own are left alone, whatever comes first.
#[rstest]
fn the_hosts_own_fragments_may_come_backwards(#[values(V4, V6)] family: Family) {
    let (node, _client) = client_of(Learn, true);
    let to = outside(family);
    let dial = netplug_tests::traffic::Dial::new(node.namespace(), to);
    let mut talk = dial.from_port(20_000).udp().unwrap();
    let seen = talk.ask("one that finds the way").unwrap().client;
    let text = format!("{}\t{seen}\t{}", OUTSIDE.name, "answer ".repeat(500));
    let ends = [(OUTSIDE, PORT), (NODE_1, 20_000)];
    send_backwards(node.outside().namespace(), "eth0", ends, family, &text);
    assert_eq!(talk.hear_line().unwrap(), text);
    assert_eq!(Counters::of(&node).get(Counter::FragmentReleased), 0);
}

/// Identifications come again: those behind a first fragment belong to it, and not to the datagram that had its before.
#[rstest]
fn fragments_for_the_node_are_not_taken_for_those_of_a_call_before(
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let network = with_host_ports(steering.network(), &[(9_000, PORT)]);
    let _web = node.add_pod_to("web", &network).listening(PORT);
    let servers = Servers::default();
    servers.start(node.namespace(), "node", SocketAddr::new(NODE_1.ip(V4), 7_000));
    let client = node.add_pod("client");
    for (port, server) in [(9_000, "web"), (7_000, "node")] {
        let to = SocketAddr::new(NODE_1.ip(V4), port);
        let mut talk = client.dial(to).from_port(20_000 + port).udp().unwrap();
        let ends = [(actor(&client), 20_000 + port), (gateway_to(NODE_1), port)];
        send_forwards(client.namespace(), ends);
        assert_eq!(talk.hear().unwrap().server, server);
    }
}

#[test]
fn fragments_of_a_pods_are_not_taken_for_those_of_an_answer_before() {
    let node = Node::with(Learn.network());
    let network = with_host_ports(Learn.network(), &[(9_000, PORT)]);
    let web = node.add_pod_to("web", &network).listening(PORT);
    let client = node.add_pod("client");
    let dial = |to, from| client.dial(to).from_port(from).udp().unwrap();
    let mut by_host_port = dial(SocketAddr::new(NODE_1.ip(V4), 9_000), 29_000);
    by_host_port.ask("who?").unwrap();
    let mut by_address = dial(web.at(V4, 9_999), 30_000);
    let flows = [(PORT, 29_000, &mut by_host_port), (9_999, 30_000, &mut by_address)];
    for (from, to, talk) in flows {
        let ends = [(actor(&web), from), (gateway_to(actor(&client)), to)];
        send_forwards(web.namespace(), ends);
        assert_eq!(talk.hear_line().unwrap().trim_end(), LONG.repeat(300).trim_end());
    }
}

const LONG: &str = "long text";

/// Another pod, or the node, by the MAC of whoever leads there.
fn gateway_to(actor: Actor) -> Actor {
    Actor { mac: [2, 0, 0, 0, 0, 1], ..actor }
}

/// Sends a datagram's fragments, each of these by the same identification.
fn send_forwards(namespace: &Namespace, [from, to]: [(Actor, u16); 2]) {
    let text = format!("{}\n", LONG.repeat(300));
    let packet =
        eth(from.0, to.0) / ip(V4, from.0, to.0) / udp(from.1, to.1) / payload(text.as_bytes());
    for frame in fragments(&packet, 1_024, 0x77) {
        send_frame(namespace, "eth0", &frame).expect("a frame is short");
    }
}
