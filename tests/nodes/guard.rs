//! What a pod sends by a packet socket, past its own stack.

use std::net::{IpAddr, SocketAddr};

use netplug_common::counter::Counter;
use netplug_tests::cast::Actor;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, becomes};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::packet::{eth, ip, payload, udp};
use netplug_tests::pod::Pod;
use netplug_tests::rules;
use netplug_tests::runtime::{Attachment, addresses};
use netplug_tests::traffic::{PATIENCE, Protocol, Servers, ping, send_frame};
use rstest::rstest;
use serde_json::json;

use crate::scene::Steering::Learn;
use crate::scene::{PORT, Scene, actor};

/// Datagrams that the pod's stack has taken.
fn datagrams(pod: &Pod, family: Family) -> u64 {
    let (file, key) = match family {
        V4 => ("/proc/thread-self/net/snmp", "Udp:"),
        V6 => ("/proc/thread-self/net/snmp6", "Udp6InDatagrams"),
    };
    let text = pod.namespace().enter(|| std::fs::read_to_string(file)).expect("procfs is mounted");
    // IPv4's file has a line of names, then one of numbers.
    let line = text.lines().rfind(|line| line.starts_with(key)).expect("Linux counts datagrams");
    line.split_whitespace()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .expect("a count is a number")
}

/// Hosts take a priority tag off and look at what is behind it, which the guard and the firewall have not.
#[rstest]
fn a_priority_tag_hides_nothing(
    #[values(V4, V6)] family: Family,
    #[values(true, false)] is_guarded: bool,
) {
    let scene = Scene::new(Learn.network().with("sourceGuard", is_guarded));
    let (client, web) = (actor(&scene.client), actor(&scene.web));
    let somebody = Actor { v4: [10, 244, 0, 99].into(), ..client };
    let mut frame =
        (eth(client, web) / ip(family, somebody, web) / udp(40000, PORT) / payload(b"hidden"))
            .bytes();
    frame.splice(12..12, [0x81, 0, 0, 0]);
    let (before, counted) = (datagrams(&scene.web, family), Counters::of(&scene.node));
    send_frame(scene.client.namespace(), "eth0", &frame).unwrap();
    if is_guarded {
        becomes(SOON, 1, || Counters::of(&scene.node).since(&counted).get(Counter::PriorityTag));
        // A packet behind it has come, so it would have, too.
        ping(scene.client.namespace(), scene.web.ip(family), 1, 8, PATIENCE).unwrap();
        assert_eq!(datagrams(&scene.web, family), before);
    } else {
        becomes(SOON, before + 1, || datagrams(&scene.web, family));
    }
}

/// A bridge floods it to every pod, and the one that it is for would take it.
#[rstest]
fn a_packet_for_one_pod_in_a_frame_for_all_meets_the_firewall(#[values(V4, V6)] family: Family) {
    let scene = Scene::steered(Learn);
    let (client, web) = (actor(&scene.client), actor(&scene.web));
    let all = Actor { mac: [0xff; 6], ..web };
    let frame =
        (eth(client, all) / ip(family, client, web) / udp(40000, PORT) / payload(b"to all"))
            .bytes();
    let node = scene.node.namespace();
    rules::forbid(node, scene.client.ip(family), scene.web.ip(family));
    let before = datagrams(&scene.web, family);
    send_frame(scene.client.namespace(), "eth0", &frame).unwrap();
    let packets = || {
        let list = if family == V4 { "iptables -vxnL FORWARD" } else { "ip6tables -vxnL FORWARD" };
        let text = node.run(list);
        let rule = text.lines().find(|line| line.contains("DROP") && !line.starts_with("Chain"));
        rule.and_then(|rule| rule.split_whitespace().next().map(str::to_owned))
    };
    becomes(SOON, Some("1".to_owned()), packets);
    assert_eq!(datagrams(&scene.web, family), before);
    rules::allow(node, scene.client.ip(family), scene.web.ip(family));
    send_frame(scene.client.namespace(), "eth0", &frame).unwrap();
    becomes(SOON, before + 1, || datagrams(&scene.web, family));
}

/// Who calls a pod by its second interface is answered by the first, which leads to him.
#[rstest]
fn a_pod_may_send_from_the_addresses_of_its_other_interfaces(
    #[values(V4, V6)] ip: Family,
    #[values(true, false)] is_outside: bool,
) {
    let node = Node::new();
    let storage = Network::netplug().named("storage").with("bridge", "cbr1").with(
        "ipam",
        json!({
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:244:0:7::/64"}]],
        }),
    );
    let web = node.add_pod("web");
    let client = node.add_pod("client");
    let second = Attachment { interface: "net1".into(), ..web.attachment().clone() };
    let result = node.runtime().add(node.namespace(), &storage, &second).unwrap();
    let is_of_family = |address: &IpAddr| Family::of(*address) == ip;
    let address = addresses(&result).into_iter().find(is_of_family).unwrap();
    let servers = Servers::default();
    let at = SocketAddr::new(address, PORT);
    servers.start(web.namespace(), "web", at);
    for protocol in Protocol::BOTH {
        let dial = if is_outside { node.outside().dial(at) } else { client.dial(at) };
        assert_eq!(dial.open(protocol).unwrap().ask_times(20).unwrap().server, "web");
    }
}
