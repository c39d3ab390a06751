//! Uplinks as networks have them: routes with MTUs of their own, priority tags, frames for others, more than four.

use std::net::{IpAddr, SocketAddr};

use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, INTRANET, NODE_1, OUTSIDE, pod_cidr};
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::packet::{eth, ip, payload, tcp, udp};
use netplug_tests::pod::Pod;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Capture, Dial, IMPATIENCE, Servers, Talk, send_frame};
use rstest::rstest;
use serde_json::json;

use crate::scene::Steering::{self, Always, Learn};
use crate::scene::{PORT, with_host_ports};
use crate::without_gateway::warnings_of_an_add;

/// Leads to the intranet by a route with an MTU of its own.
fn narrow_route(node: &Node, family: Family) {
    let (flag, via) =
        if family == V4 { ("-4", OUTSIDE.v4.to_string()) } else { ("-6", OUTSIDE.v6.to_string()) };
    let to = INTRANET.ip(family);
    node.namespace().run(&format!("ip {flag} route replace {to} via {via} mtu 1300"));
}

/// A client that has heard of its next hops: on a fresh link IPv6's first question for a neighbour is lost, and asked again
/// after a second, while datagrams are not.
fn client(node: &Node, to: SocketAddr) -> Pod {
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    eventually(SOON, || client.dial(to).patience(IMPATIENCE).ask(Udp, "first"));
    client
}

fn intranet(family: Family) -> SocketAddr {
    SocketAddr::new(INTRANET.ip(family), PORT)
}

/// Whether the pod is told of a route's MTU as it sends more at once.
fn is_told(client: &Pod, family: Family, talk: &mut Talk) -> Result<(), String> {
    talk.ask_times(30).expect("small ones are answered");
    // Refused here or by the host; either way the pod knows.
    let sent = talk.ask(&"x".repeat(1_380));
    let flag = if family == V4 { "-4" } else { "-6" };
    let known = client.namespace().run(&format!("ip {flag} route get {}", INTRANET.ip(family)));
    if known.contains("mtu 1300") { Ok(()) } else { Err(format!("{sent:?}; {known}")) }
}

#[rstest]
fn a_routes_mtu_is_what_the_host_goes_by(
    #[values(V4, V6)] family: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    narrow_route(&node, family);
    let client = client(&node, intranet(family));
    let mut talk = client.dial(intranet(family)).patience(IMPATIENCE).udp().unwrap();
    is_told(&client, family, &mut talk).unwrap();
}

#[rstest]
fn a_route_that_comes_while_somebody_watches_counts(#[values(V4, V6)] family: Family) {
    let node = Node::with(Learn.network());
    let client = client(&node, intranet(family));
    let mut talk = client.dial(intranet(family)).patience(IMPATIENCE).udp().unwrap();
    talk.ask_times(30).unwrap();
    let watcher = node.watch("");
    narrow_route(&node, family);
    watcher.says("uplinks changed");
    is_told(&client, family, &mut talk).unwrap();
}

/// What lies behind the route takes no more, and says nothing.
#[rstest]
fn a_connection_over_a_route_of_less_mtu_goes_on(
    #[values(V4, V6)] family: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    narrow_route(&node, family);
    node.outside().listen(PORT);
    let table = if family == V4 { "ip" } else { "ip6" };
    let rules = format!(
        "add table {table} narrow\n\
         add chain {table} narrow in {{ type filter hook prerouting priority -300; }}\n\
         add rule {table} narrow in meta length > 1300 counter drop\n"
    );
    node.outside().namespace().feed("nft -f -", &rules);
    // Segments leave as they are on the wire, so that each is as long as it looks.
    node.namespace().run("ip link set eth0 gso_max_segs 1");
    let client = node.add_pod("client");
    let mut talk = client.dial(intranet(family)).tcp().unwrap();
    talk.ask_times(30).unwrap();
    talk.send_bulk(200_000).unwrap();
    let counted = node.outside().namespace().run(&format!("nft list table {table} narrow"));
    assert!(counted.contains("counter packets 0 "), "{counted}");
}

/// A macvlan upon an uplink (VRRP with a MAC of its own): its frames are another station's by the uplink's MAC.
fn macvlan(node: &Node) -> IpAddr {
    node.namespace().feed(
        "ip -batch -",
        "link add shim link eth0 address 02:00:00:00:00:77 type macvlan mode bridge\n\
         address add 192.0.2.77/32 dev shim\n\
         link set shim up\n",
    );
    let neighbour = "ip neigh replace 192.0.2.77 lladdr 02:00:00:00:00:77 dev eth0";
    node.outside().namespace().run(neighbour);
    IpAddr::from([192, 0, 2, 77])
}

#[rstest]
fn a_host_port_is_reached_by_the_address_of_a_macvlan(
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let shim = macvlan(&node);
    let mapping = json!([{"hostPort": 9_000, "containerPort": PORT, "protocol": protocol.name()}]);
    let network = steering.network().with("runtimeConfig", json!({"portMappings": mapping}));
    let _web = node.add_pod_to("web", &network).listening(PORT);
    let mut talk = node.outside().dial((shim, 9_000).into()).open(protocol).unwrap();
    assert_eq!(talk.ask_times(20).unwrap().server, "web");
}

/// An answer leaves by both uplinks, and the lower one sees the node's own address and port, which are no flow of the host's NAT:
/// also where the half that would tell is lost.
#[rstest]
fn an_answer_by_a_host_port_may_leave_by_an_uplink_upon_another(
    #[values(Learn, Always)] steering: Steering,
    #[values(false, true)] has_masquerade: bool,
    #[values(false, true)] loses_both: bool,
) {
    let network = steering.network().with("masquerade", has_masquerade);
    let node = Node::with(network.clone());
    let shim = macvlan(&node);
    let outside = OUTSIDE.ip(V4);
    node.namespace().run(&format!("ip route add {outside} dev shim metric 1"));
    node.namespace().run(&format!("ip route add default via {outside} dev shim metric 2000"));
    let network = with_host_ports(network, &[(9_000, PORT)]);
    let web = node.add_pod_to("web", &network).listening(PORT);
    assert_eq!(node.netplug_json("status")["uplinks"].as_array().unwrap().len(), 2);
    let mut talk = node.outside().dial(SocketAddr::new(shim, 9_000)).tcp().unwrap();
    talk.ask_times(50).unwrap();
    for number in 0..10 {
        Table::NatIn.forget(node.namespace(), 1, &mut 1);
        if loses_both && steering == Learn {
            // By the cache.
            Table::NatOut.forget(node.namespace(), 1, &mut 1);
        }
        assert_eq!(web.servers().speak("unasked"), 1);
        assert_eq!(talk.hear_line().unwrap(), "unasked\n");
        assert_eq!(talk.ask(&number.to_string()).unwrap().server, "web");
    }
}

#[rstest]
fn a_pod_is_reached_by_way_of_a_macvlan(
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let shim = macvlan(&node);
    let web = node.add_pod("web").listening(PORT);
    node.outside().namespace().run(&format!("ip route replace {} via {shim}", pod_cidr(V4)));
    let mut talk = node.outside().dial(web.at(V4, PORT)).open(protocol).unwrap();
    assert_eq!(talk.ask_times(20).unwrap().server, "web");
}

/// Hosts take a priority tag off: the frame is one of no VLAN (IEEE 802.1Q §9.6).
#[rstest]
fn an_answer_with_a_priority_tag_finds_its_pod(
    #[values(V4, V6)] family: Family,
    #[values(Learn, Always)] steering: Steering,
    #[values(true, false)] is_from_a_pod: bool,
) {
    let node = Node::with(steering.network());
    let to = SocketAddr::new(OUTSIDE.ip(family), PORT);
    let client = client(&node, to);
    let dial = if is_from_a_pod { client.dial(to) } else { Dial::new(node.namespace(), to) };
    let mut talk = dial.udp().unwrap();
    let port = talk.ask_times(5).unwrap().client.port();
    let mut frame = (eth(OUTSIDE, NODE_1)
        / ip(family, OUTSIDE, NODE_1)
        / udp(PORT, port)
        / payload(b"tagged\n"))
    .bytes();
    frame.splice(12..12, [0x81, 0, 0x60, 0]);
    send_frame(node.outside().namespace(), "eth0", &frame).unwrap();
    assert_eq!(talk.hear_line().unwrap(), "tagged\n");
}

/// An uplink that listens to all gets what is for others.
#[rstest]
fn a_frame_for_another_station_is_not_taken(
    #[values(V4, V6)] family: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    node.namespace().run("ip link set eth0 promisc on");
    let to = SocketAddr::new(OUTSIDE.ip(family), PORT);
    let client = client(&node, to);
    let mut talk = client.dial(to).udp().unwrap();
    let port = talk.ask_times(20).unwrap().client.port();
    let send = |to: Actor, text: &str| {
        let frame =
            eth(OUTSIDE, to) / ip(family, OUTSIDE, to) / udp(PORT, port) / payload(text.as_bytes());
        send_frame(node.outside().namespace(), "eth0", &frame.bytes()).unwrap();
    };
    send(Actor { mac: *b"\x02other", ..NODE_1 }, "for another\n");
    send(NODE_1, "for the node\n");
    assert_eq!(talk.hear_line().unwrap(), "for the node\n");
}

/// CONFIG names four.
#[rstest]
fn a_mapping_of_any_uplink_heals(#[values(3, 4)] others: usize) {
    let names: Vec<String> = (1..=others).map(|number| format!("up{number}")).collect();
    let uplinks: Vec<_> = ["eth0".to_owned()].into_iter().chain(names.clone()).collect();
    let network: Network = Learn.network().with("uplinks", json!(uplinks));
    let node = Node::with(network);
    let outside: &Namespace = node.outside().namespace();
    for (number, name) in names.iter().enumerate() {
        node.namespace().run(&format!(
            "ip link add {name} type veth peer name {name} netns /run/netplug-tests/outside"
        ));
        for (end, host) in [(node.namespace(), 1), (outside, 2)] {
            end.run(&format!("ip address add 198.51.{number}.{host}/24 dev {name}"));
            end.run(&format!("ip link set {name} up"));
        }
    }
    let last = others - 1;
    let far: SocketAddr = format!("198.51.{last}.2:{PORT}").parse().unwrap();
    let servers = Servers::default();
    servers.start(outside, "far", far);
    let client = node.add_pod("client");
    let mut talk = client.dial(far).tcp().unwrap();
    let answer = talk.ask_times(20).unwrap();
    assert_eq!(answer.client_ip().to_string(), format!("198.51.{last}.1"));
    for table in [Table::Flows, Table::Visits, Table::NatIn] {
        table.forget(node.namespace(), 1, &mut 1);
    }
    servers.speak("unasked");
    assert_eq!(talk.hear_line().unwrap(), "unasked\n");
    talk.ask_times(20).unwrap();
}

/// A reset that the pod does not heed, since it is out of the window, ends no mapping.
#[rstest]
fn a_connection_that_outlives_a_reset_keeps_its_port(
    #[values(V4, V6)] family: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let mut talk = client.dial(SocketAddr::new(OUTSIDE.ip(family), PORT)).tcp().unwrap();
    let port = talk.ask_times(20).unwrap().client.port();
    let reset = eth(OUTSIDE, NODE_1) / ip(family, OUTSIDE, NODE_1) / tcp(PORT, port).rst();
    send_frame(node.outside().namespace(), "eth0", &reset.bytes()).unwrap();
    // It has come through when the pod has not heeded it: what is behind it has.
    let behind = eth(OUTSIDE, NODE_1) / ip(family, OUTSIDE, NODE_1) / udp(PORT, PORT);
    send_frame(node.outside().namespace(), "eth0", &behind.bytes()).unwrap();
    talk.ask_times(20).unwrap();
    // Longer than a mapping lives that a reset has ended.
    netplug_tests::mappings::age(node.namespace(), 3_600);
    Table::Flows.forget(node.namespace(), 1, &mut 1);
    node.outside().servers().speak("unasked");
    assert_eq!(talk.hear_line().unwrap(), "unasked\n");
}

/// What the host writes into each packet of a flow, netplug does not.
#[rstest]
fn hops_that_the_host_sets_are_set(
    #[values(V4, V6)] family: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let to = SocketAddr::new(OUTSIDE.ip(family), PORT);
    let client = client(&node, to);
    let (table, field) = if family == V4 { ("ip", "ip ttl") } else { ("ip6", "ip6 hoplimit") };
    let rules = format!(
        "add table {table} hops\n\
         add chain {table} hops forward {{ type filter hook forward priority -150; }}\n\
         add rule {table} hops forward iifname \"cbr0\" {field} set 200\n"
    );
    node.namespace().feed("nft -f -", &rules);
    let capture = Capture::on(node.outside().namespace(), "eth0").unwrap();
    let mut talk = client.dial(to).udp().unwrap();
    talk.ask_times(20).unwrap();
    talk.ask("the last one").unwrap();
    let (ethertype, protocol, hops) =
        if family == V4 { ([8, 0], 23, 22) } else { ([0x86, 0xdd], 20, 21) };
    let mut seen = 0;
    eventually(SOON, || {
        let frame = capture.next().map_err(|error| error.to_string())?.frame;
        let is_ours = frame[6..12] == NODE_1.mac && frame[12..14] == ethertype;
        if is_ours && frame[protocol] == 17 {
            assert_eq!(frame[hops], 200, "packet {seen}");
            seen += 1;
        }
        if is_ours && frame.ends_with(b"the last one\n") { Ok(()) } else { Err(String::new()) }
    });
    assert!(seen > 20);
}

/// What comes in by the uplink's port of it goes past the host.
#[rstest]
fn an_add_warns_of_a_bridge_that_is_the_nodes_way_out(
    #[values("alone", "chained")] way: &str,
    #[values(true, false)] is_way_out: bool,
) {
    let node = Node::with(match way {
        "alone" => Network::netplug(),
        _ => Network::bridge().then_netplug(),
    });
    node.namespace().run("ip link add cbr0 type bridge");
    node.namespace().run("ip link set cbr0 up");
    if is_way_out {
        node.namespace().run("ip route replace default dev cbr0");
    }
    let said = warnings_of_an_add(&node, "web", "cbr0 is the node's way out");
    assert_eq!(said.len(), usize::from(is_way_out), "{said:?}");
}
