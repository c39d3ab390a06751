//! How ports are opened by an ADD, and closed.

use super::*;

#[test]
fn a_port_that_another_pod_has_is_refused_and_nothing_is_left() {
    let scene = Scene::steered(Learn);
    let before = scene.node.netplug_json("endpoints");
    for address in ["", "192.0.2.1", "::"] {
        let mut mapping = mapping(HOST_PORT, 1, Tcp);
        mapping["hostIP"] = json!(address);
        let network = with_ports(Learn.network(), &[mapping]);
        let error =
            scene.node.try_add_pod(&format!("late{}", address.len()), &network).unwrap_err();
        assert_eq!(error.code, 109, "{error}");
        assert!(error.msg.contains("clashes with tcp"), "{error}");
        assert_eq!(scene.node.netplug_json("endpoints"), before);
    }
    // Another protocol is another port.
    let network = with_ports(
        Learn.network(),
        &[json!({
            "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "sctp"
        })],
    );
    scene.node.try_add_pod("sctp", &network).unwrap();
}

/// Of several ports all are opened, or none.
#[test]
fn a_port_beside_one_that_another_pod_has_is_not_opened() {
    let scene = Scene::steered(Learn);
    let mappings = [mapping(HOST_PORT + 1, PORT, Tcp), mapping(HOST_PORT, PORT, Tcp)];
    let network = with_ports(Learn.network(), &mappings);
    scene.node.try_add_pod("late", &network).unwrap_err();
    assert!(!scene.node.netplug("endpoints").contains("9001"));
    let free = SocketAddr::new(NODE_1.ip(V4), HOST_PORT + 1);
    let refused = scene.node.outside().dial(free).tcp().map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    is_answered(scene.node.outside().dial(at(NODE_1.ip(V4))), Tcp, OUTSIDE.ip(V4));
}

/// Its process is not called any more.
#[rstest]
fn an_add_warns_of_a_port_that_a_process_of_the_node_listens_on(
    #[values(V4, V6)] ip: Family,
    #[values(true, false)] is_any: bool,
) {
    let node = Node::with(both(Learn.network()));
    let any: IpAddr = match ip {
        V4 => Ipv4Addr::UNSPECIFIED.into(),
        V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let servers = Servers::default();
    let own = if is_any && ip == V4 { any } else { NODE_1.ip(ip) };
    servers.start(node.namespace(), "node", at(own));
    let said = warnings_of_an_add(&node, "web", "listens on");
    assert_eq!(said.len(), 2, "{said:?}");
    for protocol in Protocol::BOTH {
        let named = format!("listens on {protocol} {}", at(any));
        assert!(said.iter().any(|line| line.contains(&named)), "{said:?}");
    }
}

#[test]
fn an_add_warns_of_no_port_that_nobody_listens_on() {
    let node = Node::with(both(Learn.network()));
    let servers = Servers::default();
    servers.start(node.namespace(), "node", SocketAddr::new(NODE_1.ip(V4), HOST_PORT + 1));
    assert_eq!(warnings_of_an_add(&node, "web", "listens on"), Vec::<String>::new());
}

/// Nothing of it is the firewall's, and no packet with a loopback address is let out.
#[test]
fn it_needs_no_rule_and_no_route_localnet() {
    let scene = Scene::steered(Learn);
    let node = scene.node.namespace();
    assert_eq!(node.run("nft list ruleset"), "");
    for device in ["all", "default", "lo", "eth0", "cbr0"] {
        let path = format!("net/ipv4/conf/{device}/route_localnet");
        assert_eq!(node.sysctl(&path).as_deref(), Some("0"), "{device}");
    }
}
#[rstest]
fn with_its_pod_the_port_is_gone(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let outside = scene.node.outside();
    is_answered(outside.dial(at(NODE_1.ip(ip))), Tcp, OUTSIDE.ip(ip));
    scene.node.check(&scene.web).unwrap();
    scene.node.del_pod(scene.web);
    let refused = outside.dial(at(NODE_1.ip(ip))).tcp().map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(scene.node.netplug_json("nat")["mappings"], json!([]));
    // Another pod may have it now.
    let heir = scene.node.add_pod_to("web", &both(Learn.network())).listening(PORT);
    is_answered(outside.dial(at(NODE_1.ip(ip))), Tcp, OUTSIDE.ip(ip));
    scene.node.del_pod(heir);
    scene.node.del_pod(scene.client);
    scene.node.finish();
}

#[test]
fn check_finds_a_port_that_is_not_open() {
    let scene = Scene::steered(Learn);
    assert!(Table::HostPorts.forget(scene.node.namespace(), 1, &mut 1) > 0);
    let error = scene.node.check(&scene.web).unwrap_err();
    assert!(error.msg.contains("HostPort tcp 0.0.0.0:9000"), "{error}");
}

/// No DEL has come for it, and none will.
#[test]
fn a_pod_that_is_gone_keeps_no_port() {
    let Scene { node, web, .. } = Scene::steered(Learn);
    node.namespace().run(&format!("ip link del {}", web.host_end()));
    let heir = node.add_pod_to("heir", &both(Learn.network())).listening(PORT);
    let dial = node.outside().dial(at(NODE_1.ip(V4)));
    let answer = dial.tcp().unwrap().ask("who?").unwrap();
    assert_eq!((answer.server.as_str(), heir.name()), ("heir", "heir"));
}
