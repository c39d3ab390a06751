//! Ports of the node that lead to a pod, from wherever they are called.

mod beside_the_host;
mod opening;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use netplug_common::counter::Counter;
use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{GATEWAY, INTRANET, NODE_1, OUTSIDE};
use netplug_tests::counters::Counters;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::packet::{self, assert_same, eth, sctp};
use netplug_tests::pod::Pod;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Capture, Dial, IMPATIENCE, PATIENCE, Servers, send_frame};
use rstest::rstest;
use serde_json::{Value, json};

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{PORT, actor};
use crate::without_gateway::warnings_of_an_add;

const HOST_PORT: u16 = 9_000;
const REQUESTS: usize = 50;

fn mapping(host: u16, pod: u16, protocol: Protocol) -> Value {
    json!({"hostPort": host, "containerPort": pod, "protocol": protocol.name()})
}

fn with_ports(network: Network, mappings: &[Value]) -> Network {
    network.with("runtimeConfig", json!({"portMappings": mappings}))
}

fn both(network: Network) -> Network {
    with_ports(network, &Protocol::BOTH.map(|protocol| mapping(HOST_PORT, PORT, protocol)))
}

/// A node with a pod that has a HostPort, and one that calls it.
struct Scene {
    node: Node,
    web: Pod,
    client: Pod,
}

impl Scene {
    fn steered(steering: Steering) -> Self {
        Self::of(&steering.network())
    }

    fn of(network: &Network) -> Self {
        let node = Node::with(network.clone());
        let web = node.add_pod_to("web", &both(network.clone())).listening(PORT);
        let client = node.add_pod("client");
        Self { node, web, client }
    }
}

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, HOST_PORT)
}

#[track_caller]
fn is_answered(dial: Dial<'_>, protocol: Protocol, client: IpAddr) {
    let answer = dial.open(protocol).and_then(|mut talk| talk.ask_times(REQUESTS));
    let answer = answer.unwrap_or_else(|error| panic!("{protocol} from {client}: {error}"));
    assert_eq!((answer.server.as_str(), answer.client_ip()), ("web", client));
}

#[rstest]
fn the_outside_reaches_the_pod_by_the_nodes_address_and_stays_who_it_is(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let outside = scene.node.outside();
    is_answered(outside.dial(at(NODE_1.ip(ip))), protocol, OUTSIDE.ip(ip));
    // One whom pods may speak with as themselves.
    let intranet = Dial::new(outside.namespace(), at(NODE_1.ip(ip))).from_ip(INTRANET.ip(ip));
    is_answered(intranet, protocol, INTRANET.ip(ip));
    let counters = Counters::of(&scene.node);
    assert_eq!(counters.drops(), 0);
    if steering != Always {
        assert!(counters.hits() > REQUESTS as u64, "{counters:?}");
    }
}

#[rstest]
fn without_masquerade_too(#[values(V4, V6)] ip: Family, #[values(Tcp, Udp)] protocol: Protocol) {
    let scene = Scene::of(&Learn.network().with("masquerade", false));
    is_answered(scene.node.outside().dial(at(NODE_1.ip(ip))), protocol, OUTSIDE.ip(ip));
}

#[rstest]
fn behind_another_plugin_too(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values("bridge", "ptp")] first: &str,
) {
    let network = if first == "bridge" { Network::bridge() } else { Network::ptp() };
    let scene = Scene::of(&network.then_netplug());
    is_answered(scene.node.outside().dial(at(NODE_1.ip(ip))), protocol, OUTSIDE.ip(ip));
    is_answered(scene.client.dial(at(NODE_1.ip(ip))), protocol, scene.client.ip(ip));
    scene.node.check(&scene.web).unwrap();
    scene.node.del_pod(scene.web);
    scene.node.del_pod(scene.client);
    scene.node.finish();
}

#[rstest]
fn another_pod_reaches_it_by_any_address_of_the_nodes(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    for node in [NODE_1, GATEWAY] {
        is_answered(scene.client.dial(at(node.ip(ip))), protocol, scene.client.ip(ip));
    }
    assert_eq!(Counters::of(&scene.node).drops(), 0);
}

#[rstest]
fn the_pod_reaches_itself(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    is_answered(scene.web.dial(at(NODE_1.ip(ip))), protocol, NODE_1.ip(ip));
    assert_eq!(Counters::of(&scene.node).drops(), 0);
}

#[rstest]
fn the_nodes_processes_reach_it_by_any_address(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    let node = scene.node.namespace();
    node.run("ip link set lo up");
    for address in [loopback(ip), NODE_1.ip(ip), GATEWAY.ip(ip)] {
        let answer = Dial::new(node, at(address)).open(protocol).unwrap().ask_times(5).unwrap();
        assert_eq!(answer.server, "web", "{address}");
    }
}

fn loopback(ip: Family) -> IpAddr {
    if ip == V4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// It asked for an address and must be told that it speaks with that.
#[rstest]
fn a_process_is_told_that_it_speaks_with_whom_it_called(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let to = at(loopback(ip));
    let (connected, sent) = scene.node.namespace().enter(|| {
        let any: IpAddr = match ip {
            V4 => Ipv4Addr::UNSPECIFIED.into(),
            V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let connected = std::net::TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"who?\n", to).unwrap();
        (connected.peer_addr().unwrap(), socket.recv_from(&mut [0; 100]).unwrap().1)
    });
    assert_eq!((connected, sent), (to, to));
}

/// A socket for both families speaks IPv4 by addresses of its own form.
#[test]
fn a_process_reaches_it_by_a_mapped_address() {
    let scene = Scene::steered(Learn);
    let mapped: IpAddr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    let dial = Dial::new(scene.node.namespace(), at(mapped));
    assert_eq!(dial.tcp().unwrap().ask("who?").unwrap().server, "web");
    let told = scene.node.namespace().enter(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"who?\n", at(mapped)).unwrap();
        socket.recv_from(&mut [0; 100]).unwrap().1
    });
    assert_eq!(told, at(mapped));
}

/// Hooks run for all processes of the machine.
#[rstest]
fn a_pods_own_loopback_is_its_own(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    scene.client.namespace().run("ip link set lo up");
    let refused = scene.client.dial(at(loopback(ip))).tcp().map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[rstest]
fn a_port_of_one_address_is_not_another_addresses(#[values(Tcp, Udp)] protocol: Protocol) {
    let node = Node::with(Learn.network());
    let mut mapping = mapping(HOST_PORT, PORT, protocol);
    mapping["hostIP"] = json!(GATEWAY.v4.to_string());
    let _web = node.add_pod_to("web", &with_ports(Learn.network(), &[mapping])).listening(PORT);
    let client = node.add_pod("client");
    is_answered(client.dial(at(GATEWAY.ip(V4))), protocol, client.ip(V4));
    let refused = client.dial(at(NODE_1.ip(V4))).ask(protocol, "who?").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let refused = Dial::new(node.namespace(), at(loopback(V4))).ask(protocol, "who?").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

/// What is for a loopback address never comes from elsewhere (RFC 1122 §3.2.1.3), whoever can put it on the wire.
#[rstest]
fn a_port_of_the_loopback_address_is_for_the_nodes_own_processes(
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values("127.0.0.1", "")] host_ip: &str,
) {
    let node = Node::with(Learn.network());
    let mut mapping = mapping(HOST_PORT, PORT, protocol);
    mapping["hostIP"] = json!(host_ip);
    let _web = node.add_pod_to("web", &with_ports(Learn.network(), &[mapping])).listening(PORT);
    let client = node.add_pod("client");
    let to = at(loopback(V4));
    assert_eq!(Dial::new(node.namespace(), to).ask(protocol, "who?").unwrap().server, "web");
    for (namespace, from, node) in [
        (node.outside().namespace(), OUTSIDE.ip(V4), NODE_1.v4),
        (client.namespace(), client.ip(V4), GATEWAY.v4),
    ] {
        namespace.set_sysctl("net/ipv4/conf/eth0/route_localnet", "1");
        namespace.run("ip address flush dev lo scope host");
        namespace.run(&format!("ip route add 127.0.0.1 via {node}"));
        let dial = Dial::new(namespace, to).from_ip(from).patience(IMPATIENCE);
        dial.ask(protocol, "who?").unwrap_err();
    }
}

/// The next SCTP packet from an address that an interface gets, without its Ethernet header.
fn hears_sctp(capture: &Capture, from: IpAddr) -> Vec<u8> {
    loop {
        let mut frame = capture.next().expect("it was sent").frame;
        let is_heard = match from {
            IpAddr::V4(from) => {
                frame[12..14] == [8, 0] && frame[23] == 132 && frame[26..30] == from.octets()
            }
            IpAddr::V6(from) => {
                frame[12..14] == [0x86, 0xdd] && frame[20] == 132 && frame[22..38] == from.octets()
            }
        };
        if is_heard {
            return frame.split_off(14);
        }
    }
}

/// By frames of a sender's own making: not every kernel speaks it.
#[rstest]
fn an_sctp_association_reaches_the_pod_and_is_answered(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let mapping = json!({"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "sctp"});
    let web = node.add_pod_to("web", &with_ports(steering.network(), &[mapping]));
    let (outside, pod) = (node.outside().namespace(), actor(&web));
    let (there, here) =
        (Capture::on(web.namespace(), "eth0").unwrap(), Capture::on(outside, "eth0").unwrap());
    // INIT and its acknowledgement, COOKIE ECHO and its, and data.
    for (asks, answers) in [(1, 2), (10, 11), (0, 3), (0, 3)] {
        let call = |to, port, hops| {
            eth(OUTSIDE, NODE_1)
                / packet::ip(ip, OUTSIDE, to).ttl(hops)
                / sctp(5_000, port).chunk(asks)
        };
        send_frame(outside, "eth0", &call(NODE_1, HOST_PORT, 64).bytes()).unwrap();
        let heard = hears_sctp(&there, OUTSIDE.ip(ip));
        assert_same(&call(pod, PORT, 63).bytes()[14..], &heard);
        let answer = |from, port, hops| {
            let gateway = netplug_tests::cast::Actor { mac: [2, 0, 0, 0, 0, 1], ..OUTSIDE };
            eth(pod, gateway)
                / packet::ip(ip, from, OUTSIDE).ttl(hops)
                / sctp(port, 5_000).chunk(answers)
        };
        send_frame(web.namespace(), "eth0", &answer(pod, PORT, 64).bytes()).unwrap();
        let heard = hears_sctp(&here, NODE_1.ip(ip));
        assert_same(&answer(NODE_1, HOST_PORT, 63).bytes()[14..], &heard);
    }
}

#[rstest]
fn large_datagrams_pass(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let large = "0123456789".repeat(800);
    let to = at(NODE_1.ip(ip));
    for (who, dial) in [
        ("the outside", scene.node.outside().dial(to)),
        ("another pod", scene.client.dial(to)),
        ("the pod", scene.web.dial(to)),
    ] {
        let mut talk = dial.udp().unwrap();
        talk.ask("small").unwrap();
        for _ in 0..3 {
            talk.ask(&large).unwrap_or_else(|error| panic!("{who}: {error}"));
        }
    }
}

#[rstest]
fn halves_of_its_mappings_heal(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Table::NatOut, Table::NatIn)] half: Table,
) {
    let scene = Scene::steered(Always);
    let to = at(NODE_1.ip(ip));
    let mut talks = [scene.node.outside().dial(to), scene.client.dial(to), scene.web.dial(to)]
        .map(|dial| dial.open(protocol).unwrap());
    let mut seed = 0x2545_f491;
    for number in 0..REQUESTS {
        for talk in &mut talks {
            assert_eq!(talk.ask(&number.to_string()).unwrap().server, "web");
        }
        half.forget(scene.node.namespace(), 2, &mut seed);
    }
    assert!(Counters::of(&scene.node).get(Counter::HostPort) > 0);
}
