//! Masquerade where ports or room are scarce.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::OUTSIDE;
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::mappings::{self, Filling};
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Dial, IMPATIENCE, Talk};
use rstest::rstest;
use serde_json::json;

use crate::hosts_nat::nat;
use crate::scene::PORT;
use crate::scene::Steering::Learn;

/// As many ports as masquerade tries for a flow.
const PORTS: usize = 64;
const FLOWS: usize = 100;

/// A node whose ephemeral ports leave masquerade the last 64.
fn narrow(timeouts: serde_json::Value) -> (Node, Pod) {
    let node = Node::with(Learn.network().with("timeouts", timeouts));
    node.namespace().set_sysctl("net/ipv4/ip_local_port_range", "1024 65471");
    let client = node.add_pod("client");
    node.outside().listen(PORT);
    node.outside().listen(PORT + 1);
    // Who is to be asked for a neighbour's MAC is no matter of ports.
    for ip in Family::BOTH {
        eventually(SOON, || {
            client.dial(SocketAddr::new(OUTSIDE.ip(ip), PORT + 1)).ask(Udp, "hello")
        });
    }
    (node, client)
}

fn outside(ip: Family) -> SocketAddr {
    SocketAddr::new(OUTSIDE.ip(ip), PORT)
}

/// Of a hundred flows to one destination, those that found a port, and how many found none.
fn call(client: &Pod, ip: Family, protocol: Protocol) -> (Vec<Talk>, usize) {
    let dial = client.dial(outside(ip)).patience(Duration::from_millis(100));
    let talks = (0..FLOWS).map(|_| {
        let mut talk = dial.open(protocol)?;
        talk.ask("a port?").map(|_| talk)
    });
    let (found, none): (Vec<_>, Vec<_>) = talks.partition(Result::is_ok);
    (found.into_iter().flatten().collect(), none.len())
}

#[rstest]
fn each_port_serves_one_flow_and_the_others_are_told_apart(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let (node, client) = narrow(json!({}));
    let (mut talks, none) = call(&client, ip, protocol);
    assert_eq!((talks.len(), none), (PORTS, FLOWS - PORTS));
    let counters = Counters::of(&node);
    assert!(counters.get(Counter::PortsExhausted) >= none as u64, "{counters:?}");
    assert_eq!(counters.drops(), counters.get(Counter::PortsExhausted));
    for talk in &mut talks {
        talk.ask("still?").unwrap();
    }
    // Another destination has ports of its own.
    let another = SocketAddr::new(OUTSIDE.ip(ip), PORT + 1);
    client.dial(another).open(protocol).unwrap().ask("here?").unwrap();
}

#[rstest]
fn a_connection_that_closes_gives_its_port_to_the_next(
    #[values(V4, V6)] ip: Family,
    #[values(true, false)] by_reset: bool,
) {
    let (_node, client) = narrow(json!({}));
    let (mut talks, _) = call(&client, ip, Tcp);
    let one = talks.pop().unwrap();
    if by_reset {
        one.reset().unwrap();
    } else {
        one.close().unwrap();
    }
    let mut next = eventually(SOON, || client.dial(outside(ip)).patience(IMPATIENCE).tcp());
    next.ask("a port?").unwrap();
    // Nobody else has lost his.
    for talk in &mut talks {
        talk.ask("still?").unwrap();
    }
}

/// `udpStream` is for what goes on: a question and its answer hold their port for `udp`, as with conntrack.
#[rstest]
fn a_silent_datagram_flow_gives_its_port_to_the_next(
    #[values(V4, V6)] ip: Family,
    #[values(1, 120)] stream: u32,
) {
    let (_node, client) = hasty(stream);
    let (_silent, _) = call(&client, ip, Udp);
    eventually(SOON, || client.dial(outside(ip)).patience(IMPATIENCE).ask(Udp, "a port?"));
}

#[rstest]
fn a_stream_of_datagrams_holds_its_port_for_longer(#[values(V4, V6)] ip: Family) {
    let (_node, client) = hasty(120);
    let mut stream = client.dial(outside(ip)).udp().unwrap();
    let began = Instant::now();
    let mut known = stream.ask("a port?").unwrap();
    while began.elapsed() < Duration::from_secs(3) {
        known = stream.ask("and still?").unwrap();
    }
    // Others come, have their question answered, and are silent for so long that others get their ports.
    call(&client, ip, Udp);
    eventually(SOON, || client.dial(outside(ip)).patience(IMPATIENCE).ask(Udp, "a port?"));
    let (mut others, _) = call(&client, ip, Udp);
    let ports = others.iter_mut().filter_map(|other| Some(other.ask("which port?").ok()?.client));
    assert!(!ports.collect::<Vec<_>>().contains(&known.client));
    assert_eq!(stream.ask("and now?").unwrap().client, known.client);
}

/// A node with few ports, and datagrams that hold them for a second, unless they are a stream.
fn hasty(stream: u32) -> (Node, Pod) {
    let node = Learn.network().with("timeouts", json!({"udp": 1, "udpStream": stream}));
    let node = Node::with(node.with("revisit", "100ms"));
    node.namespace().set_sysctl("net/ipv4/ip_local_port_range", "1024 65471");
    let client = node.add_pod("client");
    node.outside().listen(PORT);
    (node, client)
}

/// The map is as full as it gets, of connections that all carry data.
#[rstest]
fn where_all_carry_data_a_new_flow_finds_no_room(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Learn.network());
    let client = node.add_pod("client");
    node.outside().listen(PORT);
    let mut before = client.dial(outside(ip)).tcp().unwrap();
    before.ask("one of the first").unwrap();
    mappings::fill(node.namespace(), ip, Filling::Established);
    let late = client.dial(outside(ip)).patience(IMPATIENCE).udp().unwrap().ask("room?");
    late.unwrap_err();
    assert!(Counters::of(&node).get(Counter::MappingsFull) > 0);
    node.netplug("flush");
    before.ask("still?").unwrap();
}

/// Full of what has ended, or of what never was answered.
#[rstest]
fn what_nobody_misses_gives_way(
    #[values(V4, V6)] ip: Family,
    #[values(Filling::Ended, Filling::Unanswered)] filling: Filling,
) {
    let node = Node::with(Learn.network());
    let client = node.add_pod("client");
    node.outside().listen(PORT);
    let mut before = client.dial(outside(ip)).tcp().unwrap();
    before.ask("one of the first").unwrap();
    mappings::fill(node.namespace(), ip, filling);
    for number in 0..10 {
        client.dial(outside(ip)).ask(Udp, &number.to_string()).unwrap();
    }
    assert!(Counters::of(&node).get(Counter::GaveWay) > 0);
    node.netplug("flush");
    before.ask("still?").unwrap();
}

/// What its rules masquerade holds its port in the same map: it is not a pod's then.
#[rstest]
fn what_nobody_misses_gives_way_to_the_hosts_nat(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Filling::Ended, Filling::Unanswered)] filling: Filling,
) {
    let node = Node::with(Learn.network());
    let client = node.add_pod("client");
    node.outside().listen(PORT);
    let rule = format!("fib saddr type local meta l4proto {protocol} masquerade to :20002");
    nat(&node, ip, "postrouting", &rule);
    let mut before = client.dial(outside(ip)).tcp().unwrap();
    before.ask("one of the first").unwrap();
    mappings::fill(node.namespace(), ip, filling);
    let mut own = Dial::new(node.namespace(), outside(ip)).open(protocol).unwrap();
    assert_eq!(own.ask("first").unwrap().client.port(), 20_002);
    assert_eq!(Counters::of(&node).drops(), 0);
    let mut pod = client.dial(outside(ip)).from_port(20_002).open(protocol).unwrap();
    for number in 0..10 {
        let seen = [&mut own, &mut pod].map(|talk| talk.ask(&number.to_string()).unwrap().client);
        assert_ne!(seen[0], seen[1]);
    }
    before.ask("still?").unwrap();
}

/// A socket of the node's that has to leave by another port than its own is known by that half alone.
#[rstest]
fn what_nobody_misses_gives_way_to_the_half_by_which_packets_leave(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::with(Learn.network());
    let client = node.add_pod("client");
    node.outside().listen(PORT);
    let mut before = client.dial(outside(ip)).tcp().unwrap();
    before.ask("one of the first").unwrap();
    let mut pod = client.dial(outside(ip)).from_port(20_001).open(protocol).unwrap();
    assert_eq!(pod.ask("first").unwrap().client.port(), 20_001);
    mappings::fill_out(node.namespace(), ip, Filling::Ended);
    let own = Dial::new(node.namespace(), outside(ip)).from_port(20_001);
    let mut own = own.open(protocol).unwrap();
    let known = own.ask("first").unwrap().client;
    for number in 0..10 {
        let seen = [&mut own, &mut pod].map(|talk| talk.ask(&number.to_string()).unwrap().client);
        assert_eq!((seen[0], seen[1].port()), (known, 20_001));
    }
    assert_ne!(known.port(), 20_001);
}

/// By the low bits of the kernel's time, what ended weeks ago would seem alive again.
#[rstest]
fn what_has_ended_does_not_stay_for_days(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Learn.network());
    let client = node.add_pod("client");
    node.outside().listen(PORT);
    let mut silent: Vec<_> = (0..5).map(|_| client.dial(outside(ip)).udp().unwrap()).collect();
    silent.iter_mut().for_each(|talk| drop(talk.ask("then silent").unwrap()));
    let mut open = client.dial(outside(ip)).tcp().unwrap();
    open.ask("stays").unwrap();
    mappings::age(node.namespace(), 3_600);
    assert_eq!(mappings::count(node.namespace(), ip), [6, 6]);
    mappings::last_swept_long_ago(node.namespace());
    client.dial(outside(ip)).udp().unwrap().ask("anew").unwrap();
    assert_eq!(mappings::count(node.namespace(), ip), [2, 2]);
    open.ask("still?").unwrap();
}
