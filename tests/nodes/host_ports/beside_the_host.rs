//! What the host, or masquerade, does on such ports itself.

use super::*;

/// What was the host's stays the host's; who calls from now on reaches the pod.
#[rstest]
fn connections_that_the_host_has_on_the_port_live_on(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Learn.network());
    let servers = netplug_tests::traffic::Servers::default();
    servers.start(node.namespace(), "node", at(NODE_1.ip(ip)));
    let _first = node.add_pod("first");
    let mut before = node.outside().dial(at(NODE_1.ip(ip))).tcp().unwrap();
    assert_eq!(before.ask("who?").unwrap().server, "node");
    let _web = node.add_pod_to("web", &both(Learn.network())).listening(PORT);
    is_answered(node.outside().dial(at(NODE_1.ip(ip))), Tcp, OUTSIDE.ip(ip));
    assert_eq!(before.ask("still?").unwrap().server, "node");
}

#[rstest]
fn a_closed_port_of_the_pod_refuses(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.web.servers().stop();
    for dial in [scene.node.outside().dial(at(NODE_1.ip(ip))), scene.client.dial(at(NODE_1.ip(ip)))]
    {
        let refused = dial.ask(protocol, "who?").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

/// A pod's own call by that very port leaves by another.
#[rstest]
fn masquerade_leaves_the_port_alone(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut talk = scene.client.dial(to).from_port(HOST_PORT).open(protocol).unwrap();
    assert_ne!(talk.ask("by which?").unwrap().client.port(), HOST_PORT);
}

/// The host's own calls leave by such ports. Which these are the first ADD finds out.
#[rstest]
fn a_port_among_the_ephemeral_ones_is_served(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values("32768 60999", "10000 60999")] ephemeral: &str,
) {
    let port = if ephemeral.starts_with("10000") { 20_000 } else { 40_000 };
    let node = Node::with(Learn.network());
    node.namespace().set_sysctl("net/ipv4/ip_local_port_range", ephemeral);
    let network = with_ports(Learn.network(), &[mapping(port, PORT, protocol)]);
    let _web = node.add_pod_to("web", &network).listening(PORT);
    node.outside().listen(PORT);
    let to = SocketAddr::new(NODE_1.ip(ip), port);
    is_answered(node.outside().dial(to), protocol, OUTSIDE.ip(ip));
    // A process of the node by that very port: connected, and answered from elsewhere.
    let own = Dial::new(node.namespace(), SocketAddr::new(OUTSIDE.ip(ip), PORT));
    let mut own = own.from_port(port).open(protocol).unwrap();
    assert_eq!(own.ask_times(REQUESTS).unwrap().server, OUTSIDE.name);
}

/// The answers to a datagram of the host's that no socket is connected by are the host's.
#[rstest]
fn answers_to_the_hosts_own_datagrams_are_no_calls(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let any: IpAddr = match ip {
        V4 => Ipv4Addr::UNSPECIFIED.into(),
        V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let answered = scene.node.namespace().enter(|| {
        let socket = UdpSocket::bind((any, HOST_PORT)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"who?\n", to).unwrap();
        socket.recv_from(&mut [0; 100]).unwrap().1
    });
    assert_eq!(answered, to);
}

/// Where nothing is, a HostPort of any address is not either.
#[rstest]
fn what_has_no_route_is_no_address_of_the_nodes(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let flag = if ip == V4 { "-4" } else { "-6" };
    scene.node.namespace().run(&format!("ip {flag} route del default"));
    let nowhere: IpAddr = match ip {
        V4 => Ipv4Addr::new(203, 0, 113, 9).into(),
        V6 => Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9).into(),
    };
    let called = scene.client.dial(at(nowhere)).patience(IMPATIENCE).tcp();
    called.map(drop).unwrap_err();
}
