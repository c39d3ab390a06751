//! Uplinks without an Ethernet header, as of VPNs: left to the host, and unharmed.

use std::net::{IpAddr, SocketAddr};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, cluster_cidr};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::node::Node;
use netplug_tests::rules::Service;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{IMPATIENCE, Servers};
use netplug_tests::tunnel::Tunnel;
use rstest::rstest;
use serde_json::json;

use crate::scene::Steering::{self, Always, Direct, Learn};
use crate::scene::{NODE_PORT, PORT, Proxy, Scene};
use crate::without_gateway::warnings_of_an_add;

const REQUESTS: usize = 40;

/// The node's address on the tunnel, and the outside's.
fn ends(ip: Family) -> [IpAddr; 2] {
    match ip {
        V4 => [1, 2].map(|host| IpAddr::from([203, 0, 113, host])),
        V6 => [1, 2].map(|host| IpAddr::from([0x2001, 0xdb8, 3, 0, 0, 0, 0, host])),
    }
}

/// A tunnel to the outside host, by which pods are reached from there.
fn tunnel(node: &Node) -> Tunnel {
    let (here, there) = (node.namespace(), node.outside().namespace());
    let tunnel = Tunnel::between([here, there], "tun0");
    for (end, at) in [(here, 0), (there, 1)] {
        let [v4, v6] = Family::BOTH.map(|ip| ends(ip)[at]);
        end.feed(
            "ip -batch -",
            &format!(
                "link set tun0 mtu 1400\n\
                 address add {v4}/24 dev tun0\n\
                 address add {v6}/64 dev tun0 nodad\n\
                 link set tun0 up\n"
            ),
        );
    }
    for ip in Family::BOTH {
        there.run(&format!("ip route replace {} via {}", cluster_cidr(ip), ends(ip)[0]));
    }
    tunnel
}

/// Has packets for `to` go by a device.
fn lead(node: &Namespace, ip: Family, to: &str, device: &str) {
    let flag = if ip == V4 { "-4" } else { "-6" };
    node.run(&format!("ip {flag} route replace {to} dev {device}"));
}

/// Packets that have come by the outside's end.
fn received(node: &Node) -> u64 {
    let text = node.outside().namespace().run("ip -json -stats link show tun0");
    let links: serde_json::Value = serde_json::from_str(&text).expect("ip prints JSON");
    links[0]["stats64"]["rx"]["packets"].as_u64().expect("a device counts")
}

#[rstest]
fn an_add_warns_of_it_and_of_nothing_else(
    #[values(true, false)] is_named: bool,
    #[values(true, false)] is_alone: bool,
) {
    let mut network = Learn.network();
    if is_named {
        let names = if is_alone { json!(["tun0"]) } else { json!(["tun0", "eth0"]) };
        network = network.with("uplinks", names);
    }
    let node = Node::with(network);
    let _tunnel = tunnel(&node);
    for (ip, flag) in [(V4, "-4"), (V6, "-6")] {
        if is_alone {
            lead(node.namespace(), ip, "default", "tun0");
        } else {
            node.namespace().run(&format!("ip {flag} route add default dev tun0 metric 4000"));
        }
    }
    let said = warnings_of_an_add(&node, "web", "");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("tun0 has no Ethernet header"), "{said:?}");
    let status = node.netplug_json("status");
    let uplinks = status["uplinks"].as_array().expect("status lists uplinks");
    assert_eq!(uplinks.len(), usize::from(!is_alone), "{status}");
}

#[rstest]
fn all_goes_on_as_by_the_host_alone(
    #[values(true, false)] is_alone: bool,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let scene = Scene::steered(steering);
    let (node, outside) = (scene.node.namespace(), scene.node.outside());
    let _tunnel = tunnel(&scene.node);
    for ip in Family::BOTH {
        let to = INTRANET.ip(ip).to_string();
        lead(node, ip, if is_alone { "default" } else { &to }, "tun0");
    }
    // Whoever comes now finds the uplinks as they are.
    let late = scene.node.add_pod("late").listening(PORT);
    outside.listen(PORT);
    let servers = Servers::default();
    for ip in Family::BOTH {
        let [here, there] = ends(ip);
        servers.start(outside.namespace(), "end", SocketAddr::new(there, PORT));
        for protocol in [Tcp, Udp] {
            let before = Counters::of(&scene.node);
            for (name, dial, server, seen) in [
                ("to its end", late.dial(SocketAddr::new(there, PORT)), "end", Some(late.ip(ip))),
                (
                    "beyond",
                    late.dial(SocketAddr::new(INTRANET.ip(ip), PORT)),
                    INTRANET.name,
                    Some(late.ip(ip)),
                ),
                ("to a pod", outside.dial(scene.web.at(ip, PORT)), "web", Some(there)),
                ("to a NodePort", outside.dial(SocketAddr::new(here, NODE_PORT)), "web", None),
            ] {
                let what = format!("{name} by {protocol}, {ip}");
                let talk = dial.open(protocol).and_then(|mut talk| {
                    let answer = talk.ask_times(REQUESTS)?;
                    if protocol == Tcp {
                        // Longer than the tunnel takes, until the host says so.
                        talk.send_bulk(200_000)?;
                        talk.fetch_bulk(200_000)?;
                    }
                    talk.close().map(|()| answer)
                });
                let answer = talk.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(answer.server, server, "{what}");
                match seen {
                    Some(seen) => assert_eq!(answer.client_ip(), seen, "{what}"),
                    None => assert_ne!(answer.client_ip(), there, "{what}"),
                }
            }
            let now = Counters::of(&scene.node).since(&before);
            assert_eq!(now.drops(), 0, "{now:?}");
        }
    }
}

/// The host may masquerade what leaves by it.
#[rstest]
fn the_host_may_masquerade_by_it(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    let _tunnel = tunnel(&scene.node);
    let (table, [here, there]) = (if ip == V4 { "iptables" } else { "ip6tables" }, ends(ip));
    scene.node.namespace().run(&format!("{table} -w -t nat -A POSTROUTING -o tun0 -j MASQUERADE"));
    let servers = Servers::default();
    let at = SocketAddr::new(there, PORT);
    servers.start(scene.node.outside().namespace(), "end", at);
    // A device that has just come up may lose what comes first.
    eventually(SOON, || {
        scene.client.dial(at).patience(IMPATIENCE).ask(protocol, "is there a way?")
    });
    let mut talk = scene.client.dial(at).open(protocol).unwrap();
    let answer = talk.ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), ("end", here));
}

/// A service of whom is behind it: the answers are the service's.
#[rstest]
fn a_service_may_lead_there(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    let scene = Scene::steered(Learn);
    let _tunnel = tunnel(&scene.node);
    let at = SocketAddr::new(ends(ip)[1], PORT);
    let servers = Servers::default();
    servers.start(scene.node.outside().namespace(), "end", at);
    let services = Service::both(82, &[at]);
    proxy.serve(scene.node.namespace(), &services);
    let mut talk = scene.client.dial(services[0].at).open(protocol).unwrap();
    let answer = talk.ask_times(REQUESTS).unwrap();
    assert_eq!((answer.server.as_str(), answer.client_ip()), ("end", scene.client.ip(ip)));
}

/// A flow that was learned by Ethernet goes by the tunnel once its route does, and back.
#[rstest]
fn a_flow_follows_its_route_there_and_back(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let scene = Scene::steered(Learn);
    scene.node.outside().listen(PORT);
    let _tunnel = tunnel(&scene.node);
    let node = scene.node.namespace();
    let to = SocketAddr::new(INTRANET.ip(ip), PORT);
    let ask = |talk: &mut netplug_tests::traffic::Talk| {
        let (before, came) = (Counters::of(&scene.node), received(&scene.node));
        talk.ask_times(REQUESTS).unwrap();
        (Counters::of(&scene.node).since(&before).hits(), received(&scene.node) - came)
    };
    let mut talk = scene.client.dial(to).open(protocol).unwrap();
    let (hits, by_tunnel) = ask(&mut talk);
    assert!(hits >= REQUESTS as u64 / 2 && by_tunnel < 10, "{hits}, {by_tunnel}");
    lead(node, ip, &to.ip().to_string(), "tun0");
    scene.node.netplug("flush");
    let (_, by_tunnel) = ask(&mut talk);
    assert!(by_tunnel >= REQUESTS as u64, "{by_tunnel} of {REQUESTS}");
    let flag = if ip == V4 { "-4" } else { "-6" };
    node.run(&format!("ip {flag} route del {}", to.ip()));
    scene.node.netplug("flush");
    let (hits, by_tunnel) = ask(&mut talk);
    assert!(hits >= REQUESTS as u64 / 2 && by_tunnel < 10, "{hits}, {by_tunnel}");
}
