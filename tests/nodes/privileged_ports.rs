//! Ports below 1024, by which some servers tell whom they trust (`secure` of NFS's exports, RFC 2409 of IKE's).

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Dial, Servers};
use rstest::rstest;

use crate::scene::Steering::Learn;
use crate::scene::{PORT, Scene};

/// As the kernel's NAT does: the port itself, or where another has it one of its kind.
#[rstest]
fn a_pod_that_calls_by_one_is_seen_by_one(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values((500, 1..=511), (700, 600..=1_023))] of: (u16, RangeInclusive<u16>),
) {
    let (port, kind) = of;
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut talks = [&scene.client, &scene.web]
        .map(|pod| pod.dial(to).from_port(port).open(protocol).expect("it is let out"));
    let seen = talks.each_mut().map(|talk| talk.ask_times(3).expect("answered").client.port());
    assert_eq!(seen[0], port);
    assert!(kind.contains(&seen[1]) && seen[1] != port, "{}", seen[1]);
    // And by no other, whatever is forgotten of it.
    for half in [Table::NatIn, Table::NatOut] {
        for table in [Table::Flows, half] {
            table.forget(scene.node.namespace(), 1, &mut 1);
        }
        let again = talks.each_mut().map(|talk| talk.ask_times(3).expect("answered").client.port());
        assert_eq!(again, seen);
    }
}

/// The pod is silent, so that nothing but the node's own search finds its half.
#[rstest]
fn an_answer_to_one_finds_its_pod_though_its_half_was_lost(#[values(V4, V6)] ip: Family) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut talk = scene.client.dial(to).from_port(700).open(Tcp).unwrap();
    assert_eq!(talk.ask("hello").unwrap().client.port(), 700);
    for table in [Table::Flows, Table::NatIn] {
        table.forget(scene.node.namespace(), 1, &mut 1);
    }
    assert_eq!(scene.node.outside().servers().speak("unasked"), 1);
    assert_eq!(talk.hear_line().unwrap(), "unasked\n");
}

/// Whoever calls the node there is to reach it.
#[rstest]
fn one_that_the_node_listens_on_is_no_pods(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let servers = Servers::default();
    servers.start(scene.node.namespace(), "node", SocketAddr::new(NODE_1.ip(ip), 700));
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pod = scene.client.dial(to).from_port(700).open(protocol).unwrap();
    let seen = pod.ask_times(3).unwrap().client.port();
    assert!((600..=1_023).contains(&seen) && seen != 700, "{seen}");
}

/// A pod has the port already when a process of the node calls by it: neither loses its connection, and neither its privilege.
#[rstest]
fn one_that_the_node_gets_later_leaves_both_theirs(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let mut pod = scene.client.dial(to).from_port(700).open(protocol).unwrap();
    assert_eq!(pod.ask_times(3).unwrap().client.port(), 700);
    let mut node = Dial::new(scene.node.namespace(), to).from_port(700).open(protocol).unwrap();
    let seen = node.ask_times(3).unwrap().client.port();
    assert!((600..=1_023).contains(&seen) && seen != 700, "{seen}");
    assert_eq!(pod.ask_times(3).unwrap().client.port(), 700);
}
