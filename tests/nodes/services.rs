//! Services on the same node, with `bridge-nf-call-iptables=0`: what does not work without netplug.

use std::net::{SocketAddr, UdpSocket};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, SERVICE};
use netplug_tests::counters::Counters;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{self, Service};
use netplug_tests::runtime::{Verb, config};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;

use crate::half_way::{MANY, traced};
use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{NODE_PORT, PORT, Proxy, Scene};

/// More requests than it takes to learn both directions.
const REQUESTS: usize = 50;

#[rstest]
fn a_service_answers_a_pod_of_its_own_node(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let scene = Scene::served_by(steering.network(), proxy);
    let mut talk = scene.client.dial(scene.service(ip)).open(protocol).unwrap();
    let answer = talk.ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), ("web", scene.client.ip(ip)));
}

#[rstest]
fn a_service_answers_the_pod_that_it_leads_to(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let mut talk = scene.web.dial(scene.service(ip)).open(protocol).unwrap();
    let answer = talk.ask_times(REQUESTS).unwrap();
    assert_eq!(answer.server, "web");
    assert_ne!(
        answer.client_ip(),
        scene.web.ip(ip),
        "kube-proxy masquerades a pod that asks itself"
    );
}

#[rstest]
fn a_service_answers_with_bridge_netfilter_switched_on_by_others(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    assert!(scene.node.bridge_netfilter(true), "this kernel has no br_netfilter");
    let mut talk = scene.client.dial(scene.service(ip)).open(protocol).unwrap();
    assert_eq!(talk.ask_times(REQUESTS).unwrap().server, "web");
    let answer = scene.client.dial(scene.web.at(ip, 8080)).ask(protocol, "directly").unwrap();
    assert_eq!(answer.client_ip(), scene.client.ip(ip));
}

#[rstest]
fn a_service_answers_the_pod_that_it_leads_to_with_bridge_netfilter(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    assert!(scene.node.bridge_netfilter(true), "this kernel has no br_netfilter");
    let mut talk = scene.web.dial(scene.service(ip)).open(protocol).unwrap();
    assert_eq!(talk.ask_times(REQUESTS).unwrap().server, "web");
}

#[rstest]
fn a_large_transfer_by_a_service_arrives_whole(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let mut talk = scene.client.dial(scene.service(ip)).tcp().unwrap();
    talk.send_bulk(8_000_000).unwrap();
    talk.fetch_bulk(8_000_000).unwrap();
    talk.close().unwrap();
}

#[rstest]
fn a_server_may_speak_first_after_a_silence(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let scene = Scene::served_by(steering.network(), proxy);
    let mut talk = scene.client.dial(scene.service(ip)).tcp().unwrap();
    talk.ask_times(REQUESTS).unwrap();
    // The same as a long silence, without its length: nothing of the flow is remembered.
    scene.node.netplug("flush");
    assert_eq!(scene.web.servers().speak("are you there?"), 1);
    assert_eq!(talk.hear_line().unwrap(), "are you there?\n");
    talk.ask("yes").unwrap();
}

/// The very port of a service's connection may call the pod behind it, too: the host then finds one of the two another port.
#[rstest]
fn a_connection_that_has_not_been_answered_yet_keeps_its_tuple(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Direct)] steering: Steering,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    const CALLER: u16 = 20_000;
    let scene = Scene::served_by(steering.network(), proxy);
    let by_service = scene.client.dial(scene.service(ip)).from_port(CALLER);
    let mut by_service = by_service.tcp().unwrap();
    let to_pod = scene.client.dial(scene.web.at(ip, PORT)).from_port(CALLER);
    let mut to_pod = to_pod.tcp().unwrap();
    assert_eq!(to_pod.ask_times(REQUESTS).unwrap().server, "web");
    assert_eq!(by_service.ask_times(REQUESTS).unwrap().server, "web");
}

#[rstest]
fn a_node_port_answers_the_outside(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let scene = Scene::served_by(steering.network(), proxy);
    let at = SocketAddr::new(NODE_1.ip(ip), NODE_PORT);
    let mut talk = scene.node.outside().dial(at).open(protocol).unwrap();
    assert_eq!(talk.ask_times(REQUESTS).unwrap().server, "web");
    let mut talk = scene.client.dial(at).open(protocol).unwrap();
    assert_eq!(talk.ask_times(REQUESTS).unwrap().server, "web");
}

/// With `bridge-nf-call-iptables=1`, as others set it, what the host translates is bridged on, and takes no hop.
#[rstest]
fn a_service_is_learned_also_where_others_have_bridges_call_iptables(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    if !scene.node.bridge_netfilter(true) {
        eprintln!("skipped: this kernel has no br_netfilter to be switched on");
        return;
    }
    let mut talk = scene.client.dial(scene.service(ip)).open(protocol).unwrap();
    let before = Counters::of(&scene.node);
    talk.ask_times(200).unwrap();
    let hits = Counters::of(&scene.node).since(&before).hits();
    assert!(hits > 350, "{hits} of 400 took the short way");
}

/// A DEL may be killed half way, and the pod goes on speaking to who called it by the service.
#[rstest]
fn a_pod_that_is_taken_away_answers_as_the_service_or_not_at_all(
    #[values("alone", "chained")] way: &str,
    #[values(V4, V6)] ip: Family,
) {
    let node = Node::with(match way {
        "alone" => Network::netplug(),
        _ => Network::bridge().then_netplug(),
    });
    let [web, client] = ["web", "client"].map(|name| node.add_pod(name));
    rules::serve(node.namespace(), &Service::both(80, &[web.at(ip, PORT)]));
    let service = SocketAddr::new(SERVICE.ip(ip), 80);
    let bind = |pod: &Pod, at: SocketAddr| pod.namespace().enter(|| UdpSocket::bind(at)).unwrap();
    let (caller, server) = (bind(&client, client.at(ip, 20_000)), bind(&web, web.at(ip, PORT)));
    caller.send_to(b"subscribe", service).unwrap();
    let (_, subscriber) = server.recv_from(&mut [0; 16]).unwrap();
    caller.set_nonblocking(true).unwrap();
    let own = node.network().plugins.last().unwrap();
    let config = config(node.network(), own, Some(web.result())).to_string();
    for call in 1..MANY {
        let del = node.runtime().command(Verb::Del, "netplug", web.attachment());
        let killed = traced(&del, Some(format!("signal=KILL:when={call}")));
        let is_through = node.namespace().output(killed, config.as_bytes()).status.success();
        if is_through {
            return;
        }
        // A pod that is cut off, or gone, cannot.
        let _ = server.send_to(b"news", subscriber);
        while let Ok((_, from)) = caller.recv_from(&mut [0; 16]) {
            assert_eq!(from, service, "killed at call {call}");
        }
    }
    panic!("it never gets through");
}

/// A port that is used again belongs to a connection of its own: it may be led elsewhere than the one before.
#[rstest]
fn a_connection_by_the_port_of_one_that_has_ended_is_led_anew(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Always)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let twin = scene.node.add_pod("twin").listening(PORT);
    let dial = || scene.client.dial(scene.service(ip)).from_port(20_006);
    let mut talk = dial().tcp().unwrap();
    assert_eq!(talk.ask_times(REQUESTS).unwrap().server, "web");
    // The server closes first: the client's port is free at once.
    talk.say("close").unwrap();
    talk.hear_line().unwrap_err();
    talk.close().unwrap();
    rules::serve(scene.node.namespace(), &Service::both(80, &[twin.at(ip, PORT)]));
    let answer = dial().tcp().unwrap().ask_times(REQUESTS).unwrap();
    assert_eq!(answer.server, "twin");
}
