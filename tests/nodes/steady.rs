//! A flow in its steady state takes the short way.

use std::net::SocketAddr;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, OUTSIDE};
use netplug_tests::counters::Counters;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::Talk;
use rstest::rstest;

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{PORT, Scene};

/// A request and an answer each.
const REQUESTS: usize = 5_000;
const PACKETS: u64 = 2 * REQUESTS as u64;

/// Asks from the flow's first packet on; at most 0.5 % may have visited the host.
#[track_caller]
fn is_steady(node: &Node, talk: &mut Talk) {
    let before = Counters::of(node);
    talk.ask_times(REQUESTS).expect("every request is answered");
    let now = Counters::of(node).since(&before);
    assert!(
        now.visits() <= PACKETS / 200,
        "{} of {PACKETS} packets visited: {now:?}",
        now.visits()
    );
    assert!(
        now.hits() >= PACKETS * 99 / 100,
        "only {} of {PACKETS} took the short way: {now:?}",
        now.hits()
    );
    assert_eq!(now.drops(), 0, "{now:?}");
}

#[rstest]
fn pod_to_pod(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    is_steady(&scene.node, &mut scene.client.dial(scene.web.at(ip, PORT)).open(protocol).unwrap());
}

#[rstest]
fn pod_to_service(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    is_steady(&scene.node, &mut scene.client.dial(scene.service(ip)).open(protocol).unwrap());
}

#[rstest]
fn pod_to_itself_by_its_service(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    is_steady(&scene.node, &mut scene.web.dial(scene.service(ip)).open(protocol).unwrap());
}

#[rstest]
fn pod_to_outside(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(true, false)] masqueraded: bool,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let actor = if masqueraded { OUTSIDE } else { INTRANET };
    let to = SocketAddr::new(actor.ip(ip), PORT);
    is_steady(&scene.node, &mut scene.client.dial(to).open(protocol).unwrap());
}

#[rstest]
fn outside_to_pod(#[values(V4, V6)] ip: Family, #[values(Tcp, Udp)] protocol: Protocol) {
    let scene = Scene::steered(Learn);
    is_steady(
        &scene.node,
        &mut scene.node.outside().dial(scene.web.at(ip, PORT)).open(protocol).unwrap(),
    );
}

#[rstest]
fn with_steering_always_every_packet_visits(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Always);
    let before = Counters::of(&scene.node);
    scene.client.dial(scene.service(ip)).open(protocol).unwrap().ask_times(500).unwrap();
    let now = Counters::of(&scene.node).since(&before);
    assert_eq!(now.hits(), 0, "{now:?}");
    assert!(now.visits() >= 1_000, "{now:?}");
}
