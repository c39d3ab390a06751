//! What a pod sends by a packet socket, past its own stack, and while it comes and goes.

use std::net::{IpAddr, SocketAddr};

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{Actor, CLIENT};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, becomes};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::packet::{self, eth, ip, payload, tcp, udp};
use netplug_tests::pod::Pod;
use netplug_tests::rules::{self, Service};
use netplug_tests::runtime::{Attachment, Verb, addresses, config};
use netplug_tests::traffic::{PATIENCE, Protocol, Servers, ping, send_frame};
use rstest::rstest;
use serde_json::json;

use crate::faults::{too_many_cidrs, unplugged};
use crate::half_way::{MANY, traced};
use crate::scene::Steering::{self, Direct, Learn};
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
    #[values(Learn, Direct)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let storage = storage(steering);
    let web = node.add_pod("web");
    let client = node.add_pod("client");
    // kube-proxy's drop what conntrack does not know.
    rules::serve(node.namespace(), &Service::both(80, &[web.at(ip, PORT)]));
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

/// A datagram for `web` that says it is of a pod that there is not.
fn of_a_stranger(web: &Pod, family: Family) -> Vec<u8> {
    let web = actor(web);
    let stranger = Actor {
        v4: [10, 244, 0, 99].into(),
        v6: "fd00:244::99".parse().expect("it is an address"),
        ..CLIENT
    };
    (eth(stranger, web) / ip(family, stranger, web) / udp(40000, PORT) / payload(b"who?")).bytes()
}

/// Killed at whatever it asks of the kernel's BPF: a DEL leaves no pod that goes on speaking without its programs.
#[rstest]
fn a_pod_is_guarded_for_as_long_as_it_is_heard(
    #[values("alone", "chained")] way: &str,
    #[values(V4, V6)] family: Family,
) {
    let node = Node::with(match way {
        "alone" => Network::netplug(),
        _ => Network::bridge().then_netplug(),
    });
    let [web, client] = ["web", "client"].map(|name| node.add_pod(name).listening(PORT));
    let frame = of_a_stranger(&web, family);
    let own = node.network().plugins.last().unwrap();
    let config = config(node.network(), own, Some(client.result())).to_string();
    let before = datagrams(&web, family);
    for call in 1..MANY {
        let del = node.runtime().command(Verb::Del, "netplug", client.attachment());
        let killed = traced(&del, Some(format!("signal=KILL:when={call}")));
        let is_through = node.namespace().output(killed, config.as_bytes()).status.success();
        // A pod that is cut off, or gone, cannot.
        let _ = send_frame(client.namespace(), "eth0", &frame);
        if is_through {
            return;
        }
        assert_eq!(datagrams(&web, family), before, "killed at call {call}");
    }
    panic!("it never gets through");
}

/// The same of an ADD that is refused, from its first step to its last undo.
#[rstest]
fn a_pod_is_guarded_from_when_it_is_heard(#[values(V4, V6)] family: Family) {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let (late, attachment) = unplugged(&node, "late", "");
    let refused = too_many_cidrs(node.network());
    let config = config(&refused, &refused.plugins[0], None).to_string();
    let add = node.runtime().command(Verb::Add, "netplug", &attachment);
    let frame = of_a_stranger(&web, family);
    let before = datagrams(&web, family);
    for call in 1..MANY {
        let killed = traced(&add, Some(format!("signal=KILL:when={call}")));
        let output = node.namespace().output(killed, config.as_bytes());
        let _ = send_frame(&late, "eth0", &frame);
        assert_eq!(datagrams(&web, family), before, "killed at call {call}");
        if String::from_utf8_lossy(&output.stdout).contains("1024") {
            return;
        }
        node.runtime().del(node.namespace(), &refused, &attachment, None).unwrap();
    }
    panic!("it never gets through");
}

/// A network of one more address for a pod.
fn storage(steering: Steering) -> Network {
    let range = |first: &str, prefix| json!([{"subnet": format!("{first}/{prefix}")}]);
    steering.network().named("storage").with("bridge", "cbr1").with(
        "ipam",
        json!({
            "type": "host-local",
            "ranges": [range("10.244.7.0", 24), range("fd00:244:0:7::", 64)],
        }),
    )
}

/// Nor with `direct`, where the connection was entered while it had the address.
#[rstest]
fn a_pod_may_not_send_from_the_address_of_an_interface_that_it_had(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Direct)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let storage = storage(steering);
    let [web, client] = ["web", "client"].map(|name| node.add_pod(name).listening(PORT));
    let second = Attachment { interface: "net1".into(), ..web.attachment().clone() };
    let result = node.runtime().add(node.namespace(), &storage, &second).unwrap();
    let mut had = actor(&web);
    for address in addresses(&result) {
        match address {
            IpAddr::V4(address) => had.v4 = address,
            IpAddr::V6(address) => had.v6 = address,
        }
    }
    let packet = |segment| eth(had, actor(&client)) / packet::ip(ip, had, actor(&client)) / segment;
    let opens = packet(tcp(40_000, PORT).syn()).bytes();
    let goes_on = (packet(tcp(40_000, PORT).ack()) / payload(b"hello")).bytes();
    let counted = Counters::of(&node);
    send_frame(web.namespace(), "eth0", &opens).unwrap();
    // It has come, and is answered.
    becomes(SOON, true, || {
        let since = Counters::of(&node).since(&counted);
        since.visits() + since.hits() >= 2
    });
    node.runtime().del(node.namespace(), &storage, &second, None).unwrap();
    let counted = Counters::of(&node);
    send_frame(web.namespace(), "eth0", &goes_on).unwrap();
    let dropped = || Counters::of(&node).since(&counted).get(Counter::SourceAddress);
    becomes(SOON, true, || dropped() > 0);
}
