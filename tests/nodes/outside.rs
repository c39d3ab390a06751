//! Between pods and the world.

use std::net::SocketAddr;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NODE_1, OUTSIDE, cluster_cidr};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::node::Node;
use netplug_tests::rules::{self, Service};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{IMPATIENCE, PATIENCE, ping};
use rstest::rstest;

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{PORT, Scene};

const REQUESTS: usize = 50;
/// A tunnel that not every kernel has.
const GRE: &str = "gre";

#[rstest]
fn the_outside_sees_the_node_and_the_intranet_sees_the_pod(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    scene.node.outside().listen(PORT);
    for (actor, seen) in [(OUTSIDE, NODE_1.ip(ip)), (INTRANET, scene.client.ip(ip))] {
        let mut talk =
            scene.client.dial(SocketAddr::new(actor.ip(ip), PORT)).open(protocol).unwrap();
        let answer = talk.ask_times(REQUESTS).unwrap();
        assert_eq!((answer.server.as_str(), answer.client_ip()), (actor.name, seen));
    }
}

#[rstest]
fn the_outside_reaches_a_pod_by_its_address(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let mut talk = scene.node.outside().dial(scene.web.at(ip, PORT)).open(protocol).unwrap();
    let answer = talk.ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), ("web", OUTSIDE.ip(ip)));
}

/// A tunnel's packets inherit the hash of what they carry: they must not be taken for it.
#[rstest]
fn pods_reach_what_lies_behind_a_tunnel(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values("vxlan id 7 dstport 4789", GRE)] kind: &str,
) {
    let scene = Scene::steered(Learn);
    let (node, outside) = (scene.node.namespace(), scene.node.outside());
    let probe = format!("ip link add probe type {kind} remote {}", OUTSIDE.v4);
    if kind == GRE && !node.try_feed(&probe, "").status.success() {
        eprintln!("skipped: this kernel has no GRE");
        return;
    }
    outside.listen(PORT);
    let ends = [(node, "1", NODE_1, OUTSIDE), (outside.namespace(), "2", OUTSIDE, NODE_1)];
    for (end, number, local, remote) in ends {
        end.feed(
            "ip -batch -",
            &format!(
                "link add tunnel type {kind} local {} remote {} dev eth0\n\
                 address add 172.31.0.{number}/24 dev tunnel\n\
                 address add fd99::{number}/64 dev tunnel nodad\n\
                 link set tunnel up\n",
                local.v4, remote.v4
            ),
        );
    }
    for (end, to, by4, by6) in [
        (node, [INTRANET.v4.to_string(), INTRANET.v6.to_string()], "172.31.0.2", "fd99::2"),
        (
            outside.namespace(),
            [cluster_cidr(V4).into(), cluster_cidr(V6).into()],
            "172.31.0.1",
            "fd99::1",
        ),
    ] {
        end.run(&format!("ip route replace {} via {by4}", to[0]));
        end.run(&format!("ip route replace {} via {by6}", to[1]));
    }
    let to = SocketAddr::new(INTRANET.ip(ip), PORT);
    let answer = scene.client.dial(to).open(protocol).unwrap().ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), (INTRANET.name, scene.client.ip(ip)));
}

#[rstest]
fn two_pods_with_one_source_port_keep_apart(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut talks = [&scene.client, &scene.web]
        .map(|pod| pod.dial(to).from_port(20_000).open(protocol).unwrap());
    for number in 0..REQUESTS {
        let seen = talks.each_mut().map(|talk| talk.ask(&number.to_string()).unwrap().client);
        assert_ne!(seen[0], seen[1]);
    }
}

#[rstest]
fn the_node_itself_is_not_masqueraded_into(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let own = netplug_tests::traffic::Dial::new(scene.node.namespace(), to);
    let mut own = own.from_port(20_001).open(protocol).unwrap();
    own.ask("before").unwrap();
    // A pod that wants the very port that a socket of the node has towards this peer.
    let mut pod = scene.client.dial(to).from_port(20_001).open(protocol).unwrap();
    for number in 0..REQUESTS {
        let (node, pod) =
            (own.ask(&number.to_string()).unwrap(), pod.ask(&number.to_string()).unwrap());
        assert_eq!(node.client, SocketAddr::new(NODE_1.ip(ip), 20_001));
        assert_ne!(node.client, pod.client);
    }
}

/// NodePorts, and those that the host's own sockets are given.
#[rstest]
fn a_port_that_may_be_the_hosts_is_not_a_pods(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(31_000, 40_000)] port: u16,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pod = scene.client.dial(to).from_port(port).open(protocol).unwrap();
    let seen = pod.ask_times(3).unwrap().client.port();
    // `ip_local_port_range` begins where NodePorts end.
    assert!(seen >= 1_024 && !(30_000..=60_999).contains(&seen), "{seen}");
}

/// Whoever calls it is to reach it: this peer, too, by the very port that the pod calls.
#[rstest]
fn a_port_that_the_node_listens_on_is_not_a_pods(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let servers = netplug_tests::traffic::Servers::default();
    servers.start(scene.node.namespace(), "node", SocketAddr::new(NODE_1.ip(ip), 20_004));
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pod = scene.client.dial(to).from_port(20_004).open(protocol).unwrap();
    assert_ne!(pod.ask_times(3).unwrap().client.port(), 20_004);
}

/// A pod speaks by the port already when a process of the node gets it, and calls the same host: neither loses its connection.
#[rstest]
fn a_port_that_the_node_gets_later_leaves_both_their_connections(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pod = scene.client.dial(to).from_port(20_001).open(protocol).unwrap();
    assert_eq!(pod.ask("before").unwrap().client.port(), 20_001);
    let own = netplug_tests::traffic::Dial::new(scene.node.namespace(), to);
    let mut own = own.from_port(20_001).open(protocol).unwrap();
    for number in 0..REQUESTS {
        let (node, pod) =
            (own.ask(&number.to_string()).unwrap(), pod.ask(&number.to_string()).unwrap());
        assert_eq!(pod.client, SocketAddr::new(NODE_1.ip(ip), 20_001));
        assert_eq!(node.client_ip(), NODE_1.ip(ip));
        assert_ne!(node.client, pod.client);
    }
}

#[rstest]
fn pods_reach_the_node(#[values(V4, V6)] ip: Family, #[values(Tcp, Udp)] protocol: Protocol) {
    let scene = Scene::steered(Learn);
    let servers = netplug_tests::traffic::Servers::default();
    let at = SocketAddr::new(NODE_1.ip(ip), PORT);
    servers.start(scene.node.namespace(), "node", at);
    let answer = scene.client.dial(at).open(protocol).unwrap().ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), ("node", scene.client.ip(ip)));
    let own = netplug_tests::traffic::Dial::new(scene.node.namespace(), scene.web.at(ip, PORT));
    assert_eq!(own.open(protocol).unwrap().ask_times(REQUESTS).unwrap().server, "web");
}

/// The short way looks for a next hop by addresses alone; the host may have asked for more.
#[rstest]
fn what_the_host_routes_by_a_rule_goes_the_hosts_way(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(true, false)] by_port: bool,
) {
    let scene = Scene::steered(Learn);
    let outside = scene.node.outside();
    outside.listen(PORT);
    // Another router on the uplink's network: the same machine, by another MAC, which only it answers for.
    outside.namespace().set_sysctl("net/ipv4/conf/all/arp_ignore", "1");
    let gateway = "02:67:77:61:79:32";
    outside.namespace().feed(
        "ip -batch -",
        &format!(
            "link add gateway link eth0 address {gateway} type macvlan mode bridge\n\
             address add 192.0.2.3/24 dev gateway\n\
             address add 2001:db8:1::3/64 dev gateway nodad\n\
             link set gateway up\n"
        ),
    );
    let (flag, via) = if ip == V4 { ("-4", "192.0.2.3") } else { ("-6", "2001:db8:1::3") };
    let node = scene.node.namespace();
    let rule = if by_port {
        format!("ipproto {protocol} dport {PORT}")
    } else {
        format!("from {}", cluster_cidr(ip))
    };
    node.run(&format!("ip {flag} rule add {rule} table 100"));
    node.run(&format!("ip {flag} route add default via {via} dev eth0 table 100"));
    let received = || {
        let text = outside.namespace().run("ip -json -stats link show gateway");
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    let before = received();
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let answer = scene.client.dial(to).open(protocol).unwrap().ask_times(REQUESTS).unwrap();
    assert_eq!(answer.client_ip(), NODE_1.ip(ip));
    assert!(received() - before >= REQUESTS as u64, "{} of {REQUESTS}", received() - before);
}

/// The node's own echoes are in no socket table, and their answers have no mapping.
#[rstest]
fn answers_to_the_nodes_own_echoes_are_all_the_nodes(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    scene.client.dial(to).open(Udp).unwrap().ask_times(3).unwrap();
    for identifier in 2_000..2_300 {
        ping(scene.node.namespace(), to.ip(), identifier, 8, IMPATIENCE).unwrap();
    }
    assert_eq!(Counters::of(&scene.node).drops(), 0);
}

/// A pod and the node ask the same host under one identifier.
#[rstest]
fn echoes_of_a_pod_and_of_the_node_keep_apart(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    for _ in 0..3 {
        ping(scene.client.namespace(), OUTSIDE.ip(ip), 2_000, 8, PATIENCE).unwrap();
        ping(scene.node.namespace(), OUTSIDE.ip(ip), 2_000, 8, PATIENCE).unwrap();
    }
}

/// The node's processes call a service, whose proxy masquerades them by ports of its own choice.
#[rstest]
fn the_nodes_own_calls_to_a_service_are_answered(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let backend = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let services = Service::both(81, &[backend]);
    rules::serve(scene.node.namespace(), &services);
    // A pod's flow to the same host, so that there are mappings to be searched.
    scene.client.dial(backend).open(Udp).unwrap().ask_times(3).unwrap();
    for _ in 0..40 {
        let dial = netplug_tests::traffic::Dial::new(scene.node.namespace(), services[0].at);
        let answer = dial.open(protocol).unwrap().ask_times(5).unwrap();
        assert_eq!((answer.server.as_str(), answer.client_ip()), (OUTSIDE.name, NODE_1.ip(ip)));
    }
    assert_eq!(Counters::of(&scene.node).drops(), 0);
}

/// A process of the node's that has bound its port calls a service: no socket is connected by what leaves.
#[rstest]
fn a_port_of_the_nodes_call_to_a_service_is_not_a_pods(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let backend = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let services = Service::both(81, &[backend]);
    rules::serve(scene.node.namespace(), &services);
    let dial = netplug_tests::traffic::Dial::new(scene.node.namespace(), services[0].at);
    let mut node = dial.from_port(20_002).open(protocol).unwrap();
    node.ask("before").unwrap();
    let mut pod = scene.client.dial(backend).from_port(20_002).open(protocol).unwrap();
    for number in 0..REQUESTS {
        let seen = [&mut node, &mut pod].map(|talk| talk.ask(&number.to_string()).unwrap().client);
        assert_ne!(seen[0], seen[1]);
    }
}

/// Two uplinks, of which one lies upon the other: what leaves by it passes both.
#[rstest]
fn an_uplink_may_lie_upon_another(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::with(Learn.network());
    node.outside().listen(PORT);
    let (flag, own): (_, std::net::IpAddr) = match ip {
        V4 => ("-4", [192, 0, 2, 9].into()),
        V6 => ("-6", [0x2001, 0xdb8, 1, 0, 0, 0, 0, 9].into()),
    };
    let (upper, via) = (node.namespace(), OUTSIDE.ip(ip));
    upper.feed(
        "ip -batch -",
        &format!(
            "link add upper link eth0 type macvlan mode bridge\n\
             address add {own}/24 dev upper nodad\n\
             link set upper up\n"
        ),
    );
    upper.run(&format!("ip {flag} route del default"));
    upper.run(&format!("ip {flag} route add default via {via} dev eth0 metric 2000"));
    upper.run(&format!("ip {flag} route add default via {via} dev upper metric 10"));
    // Both are on the link of the outside host.
    upper.run(&format!("ip {flag} route add {via} dev upper metric 1"));
    let client = node.add_pod("client");
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pod = client.dial(to).from_port(20_003).open(protocol).unwrap();
    let answer = pod.ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), (OUTSIDE.name, own));
    // The node's own, by a port that the pod has.
    let dial = netplug_tests::traffic::Dial::new(node.namespace(), to).from_port(20_003);
    let answer = dial.open(protocol).unwrap().ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), (OUTSIDE.name, own));
    pod.ask("still?").unwrap();
    assert_eq!(Counters::of(&node).drops(), 0);
}

/// While the host drops a call's packets nothing comes of them; when it lets them through, answers go as they are.
#[rstest]
fn a_call_that_was_dropped_for_long_is_answered_as_the_pod(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    let node = scene.node.namespace();
    rules::forbid(node, OUTSIDE.ip(ip), scene.web.ip(ip));
    let dial = scene.node.outside().dial(scene.web.at(ip, PORT));
    let mut talk = dial.patience(std::time::Duration::from_millis(20)).open(Udp).unwrap();
    for _ in 0..12 {
        talk.ask("may I?").unwrap_err();
    }
    rules::allow(node, OUTSIDE.ip(ip), scene.web.ip(ip));
    // A socket that is connected hears only whom it called.
    eventually(SOON, || talk.ask("now?"));
}

/// Who learns from one peer by which address and port he is seen (STUN, RFC 8489) tells others to send there: the kernel's NAT
/// leaves a port as it is wherever it may.
#[rstest]
fn one_port_of_a_pods_is_one_port_of_the_nodes_towards_everybody(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Learn.network());
    let client = node.add_pod("client");
    for port in PORT..PORT + 4 {
        node.outside().listen(port);
    }
    let seen_at = |port| {
        let dial = client.dial(SocketAddr::new(OUTSIDE.ip(ip), port)).from_port(40_000);
        dial.ask(Udp, "who am I?").unwrap().client
    };
    let seen: Vec<_> = (PORT..PORT + 4).map(seen_at).collect();
    assert!(seen.iter().all(|client| *client == seen[0]), "{seen:?}");
}

/// The answers to both calls would be the same: the host gives the later one another source port, and its answers leave as the
/// pod's all the same.
#[rstest]
fn who_calls_a_pod_as_a_service_and_as_itself_by_one_port_is_answered_as_both(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always)] steering: Steering,
) {
    const NODE_PORT: u16 = 30_081;
    let scene = Scene::steered(steering);
    let web = scene.web.at(ip, PORT);
    let services = Service::both(81, &[web]).into_iter();
    let services: Vec<_> = services.map(|service| service.node_port(NODE_PORT).local()).collect();
    rules::serve(scene.node.namespace(), &services);
    let mut talks = [SocketAddr::new(NODE_1.ip(ip), NODE_PORT), web].map(|at| {
        let mut talk = scene.node.outside().dial(at).from_port(20_005).open(protocol).unwrap();
        talk.ask("first").unwrap();
        talk
    });
    let seen = talks.each_mut().map(|talk| talk.ask_times(REQUESTS).unwrap().client);
    assert_eq!(seen[0], SocketAddr::new(OUTSIDE.ip(ip), 20_005));
    assert_eq!(seen[1].ip(), OUTSIDE.ip(ip));
    assert_ne!(seen[0], seen[1]);
}

/// A router may make itself the caller of pods: the answers find back all the same.
#[rstest]
fn a_call_whose_caller_the_host_masquerades_is_answered(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let (web, outside) = (scene.web.at(ip, PORT), OUTSIDE.ip(ip));
    let rule = format!(
        "table inet router {{ chain postrouting {{ type nat hook postrouting priority srcnat;\n\
         {} saddr {outside} masquerade\n}}\n}}\n",
        if ip == V4 { "ip" } else { "ip6" }
    );
    scene.node.namespace().feed("nft -f -", &rule);
    let mut talk = scene.node.outside().dial(web).open(protocol).unwrap();
    let answer = talk.ask_times(REQUESTS).unwrap();
    assert_eq!(answer.server, "web");
    assert_ne!(answer.client_ip(), outside);
}
