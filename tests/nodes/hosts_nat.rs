//! What the host's own NAT sends by an address and a port of the node which are a HostPort, too: conntrack knows whose the
//! answers are.

use std::net::{SocketAddr, UdpSocket};

use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::Lifetimes;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE, SERVICE};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, becomes, eventually};
use netplug_tests::mappings;
use netplug_tests::node::Node;
use netplug_tests::packet::{self, eth, payload, tcp, udp};
use netplug_tests::pod::Pod;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Dial, PATIENCE, send_frame};
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

/// Rules of the host's own NAT.
pub fn nat(node: &Node, ip: Family, chain: &str, rule: &str) {
    let table = table(ip);
    let (hook, priority) = match chain {
        "postrouting" => ("postrouting", 100),
        hook => (hook, -100),
    };
    let rules = format!(
        "add table {table} nat
         add chain {table} nat {chain} {{ type nat hook {hook} priority {priority}; }}
         add rule {table} nat {chain} {rule}
"
    );
    node.namespace().feed("nft -f -", &rules);
}

fn masquerade(node: &Node, ip: Family) {
    nat(node, ip, "postrouting", "oifname eth0 masquerade");
}

/// `to` by the service's address, or by a port of the node.
fn serve(node: &Node, ip: Family, chain: &str, port: Option<u16>, to: SocketAddr) {
    let at = port.map_or(SERVICE.ip(ip), |_| NODE_1.ip(ip));
    let port = port.map_or(String::new(), |port| format!("th dport {port}"));
    let table = table(ip);
    let rule = format!("{table} daddr {at} meta l4proto {{ tcp, udp }} {port} dnat to {to}");
    nat(node, ip, chain, &rule);
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
    // It goes on, and so is a stream from then on.
    let Lifetimes { udp, udp_stream, .. } = Lifetimes::DEFAULT;
    for seconds in [udp, udp_stream, udp_stream] {
        mappings::age(node.namespace(), seconds * 2 / 3);
        send_frame(node.outside().namespace(), "eth0", &frame.bytes()).unwrap();
        assert_eq!(talk.hear_line().unwrap(), "unasked\n");
    }
}

/// A process of the node calls a service: its socket is connected to the service, and no socket to the endpoint. That is
/// elsewhere, or a pod here.
#[rstest]
fn answers_to_the_nodes_calls_of_a_service_are_no_calls(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values((false, 9_000), (true, 9_000), (true, 40_000))] masquerade_and_port: (bool, u16),
    #[values(false, true)] is_here: bool,
) {
    let (has_masquerade, port) = masquerade_and_port;
    let (node, _web) = node_and_web(Learn, has_masquerade, port);
    let other = node.add_pod("other").listening(PORT);
    let to = if is_here { other.at(ip, PORT) } else { SocketAddr::new(OUTSIDE.ip(ip), PORT) };
    serve(&node, ip, "output", None, to);
    let dial = Dial::new(node.namespace(), SocketAddr::new(SERVICE.ip(ip), 80)).from_port(port);
    let answer = dial.open(protocol).and_then(|mut talk| talk.ask_times(20)).unwrap();
    let server = if is_here { other.name() } else { OUTSIDE.name };
    assert_eq!((answer.server.as_str(), answer.client.port()), (server, port));
}

/// From outside by a NodePort, or from the very pod by its service: the endpoint sees the node, by a port that is a HostPort.
#[rstest]
fn answers_to_what_it_masquerades_to_a_pod_are_no_calls(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always)] steering: Steering,
    #[values(false, true)] is_to_itself: bool,
) {
    let (node, _web) = node_and_web(steering, true, 9_000);
    let other = node.add_pod("other").listening(PORT);
    serve(&node, ip, "prerouting", Some(30_080), other.at(ip, PORT));
    serve(&node, ip, "prerouting", None, other.at(ip, PORT));
    let rule = "ct status dnat meta l4proto { tcp, udp } masquerade to :9000";
    nat(&node, ip, "postrouting", rule);
    let dial = if is_to_itself {
        other.dial(SocketAddr::new(SERVICE.ip(ip), 80))
    } else {
        node.outside().dial(SocketAddr::new(NODE_1.ip(ip), 30_080))
    };
    let answer = dial.open(protocol).and_then(|mut talk| talk.ask_times(20)).unwrap();
    assert_eq!((answer.server.as_str(), answer.client.port()), ("other", 9_000));
}

/// A resolver of the node's: its socket takes answers from anybody.
#[rstest]
fn answers_to_a_socket_without_a_peer_are_no_calls(
    #[values(V4, V6)] ip: Family,
    #[values(true, false)] is_here: bool,
) {
    let (node, _web) = node_and_web(Learn, true, 40_000);
    let other = node.add_pod("other").listening(PORT);
    let to = if is_here { other.at(ip, PORT) } else { SocketAddr::new(OUTSIDE.ip(ip), PORT) };
    let any: std::net::IpAddr = match ip {
        V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let heard = node.namespace().enter(move || {
        let socket = UdpSocket::bind((any, 40_000))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send_to(b"who?\n", to)?;
        socket.recv_from(&mut [0; 512]).map(|(_, from)| from)
    });
    assert_eq!(heard.unwrap(), to);
}

/// The host's NAT gives a pod's datagram the tuple of a HostPort's flow: the peer could not tell the two apart.
#[rstest]
fn what_it_gives_a_callers_tuple_is_dropped(
    #[values(V4, V6)] ip: Family,
    #[values(false, true)] has_masquerade: bool,
) {
    let (node, _web) = node_and_web(Learn, has_masquerade, 9_000);
    masquerade(&node, ip);
    let client = node.add_pod("client");
    let dial = node.outside().dial(SocketAddr::new(NODE_1.ip(ip), 9_000)).from_port(5_000);
    let mut talk = dial.udp().unwrap();
    assert_eq!(talk.ask("who?").unwrap().server, "web");
    let dial = client.dial(SocketAddr::new(OUTSIDE.ip(ip), 5_000)).from_port(9_000);
    dial.udp().unwrap().say("of another pod").unwrap();
    becomes(SOON, 1, || Counters::of(&node).get(Counter::TupleInUse));
    assert_eq!(talk.ask("still?").unwrap().server, "web");
}

/// A pod has had the port since before it was a HostPort.
#[rstest]
fn what_would_get_a_pods_tuple_gets_another_port(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::with(Learn.network());
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pods = client.dial(to).from_port(9_000).open(protocol).unwrap();
    assert_eq!(pods.ask_times(5).unwrap().client.port(), 9_000);
    let network = with_host_ports(Learn.network(), &[(9_000, PORT)]);
    let _web = node.add_pod_to("web", &network).listening(PORT);
    serve(&node, ip, "output", None, to);
    let dial = Dial::new(node.namespace(), SocketAddr::new(SERVICE.ip(ip), 80)).from_port(9_000);
    let mut hosts = dial.open(protocol).unwrap();
    for talk in [&mut hosts, &mut pods] {
        talk.ask_times(5).unwrap();
    }
}

/// What is late of a connection that has ended looks like a call in progress, whose tuple the node's next connection has.
#[rstest]
fn the_nodes_connection_is_no_call_after_a_straggler(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let (node, _web) = node_and_web(steering, true, 40_000);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let dial = || Dial::new(node.namespace(), to).from_port(40_000);
    dial().tcp().unwrap().reset().unwrap();
    let straggler = eth(OUTSIDE, NODE_1) / packet::ip(ip, OUTSIDE, NODE_1);
    let straggler = straggler / tcp(PORT, 40_000).ack() / payload(b"late");
    send_frame(node.outside().namespace(), "eth0", &straggler.bytes()).unwrap();
    eventually(SOON, || {
        let calls = Counters::of(&node).get(Counter::HostPort);
        if calls > 0 { Ok(()) } else { Err(calls) }
    });
    assert_eq!(dial().tcp().unwrap().ask_times(5).unwrap().server, OUTSIDE.name);
}
