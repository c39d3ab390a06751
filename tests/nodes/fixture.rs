//! The fixture itself, with Debian's reference plugins where netplug would be.

use netplug_tests::cast::{Family, INTRANET, OUTSIDE};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::traffic::{IMPATIENCE, PATIENCE, Protocol, ping};
use netplug_tests::{namespace::Namespace, rules};
use rstest::rstest;
use std::net::SocketAddr;

use Family::{V4, V6};

#[rstest]
fn pods_of_the_reference_plugins_talk(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Network::bridge());
    let web = node.add_pod("web").listening(8080);
    let client = node.add_pod("client");
    for protocol in Protocol::BOTH {
        let answer = client.dial(web.at(ip, 8080)).ask(protocol, "hello").unwrap();
        assert_eq!((answer.server.as_str(), answer.client_ip()), ("web", client.ip(ip)));
    }
    ping(client.namespace(), web.ip(ip), 77, 64, PATIENCE).unwrap();
    let mut talk = client.dial(web.at(ip, 8080)).tcp().unwrap();
    talk.ask_times(20).unwrap();
    talk.send_bulk(1_000_000).unwrap();
    talk.fetch_bulk(1_000_000).unwrap();
    assert_eq!(web.servers().speak("unasked"), 1);
    assert_eq!(talk.hear_line().unwrap(), "unasked\n");
    talk.close().unwrap();
    node.del_pod(web);
    node.del_pod(client);
    node.finish();
}

#[rstest]
fn the_outside_sees_pods_as_they_are_where_nobody_masquerades(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Network::ptp());
    let web = node.add_pod("web").listening(8080);
    node.outside().listen(9000);
    for actor in [OUTSIDE, INTRANET] {
        let answer =
            web.dial(SocketAddr::new(actor.ip(ip), 9000)).ask(Protocol::Udp, "hi").unwrap();
        assert_eq!((answer.server.as_str(), answer.client_ip()), (actor.name, web.ip(ip)));
    }
    let answer = node.outside().dial(web.at(ip, 8080)).ask(Protocol::Tcp, "in").unwrap();
    assert_eq!(answer.client_ip(), OUTSIDE.ip(ip));
    node.del_pod(web);
    node.finish();
}

#[rstest]
fn a_rule_between_two_pods_is_obeyed_with_bridge_netfilter(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Network::bridge());
    node.bridge_netfilter(true);
    let web = node.add_pod("web").listening(8080);
    let client = node.add_pod("client");
    rules::forbid(node.namespace(), client.ip(ip), web.ip(ip));
    let dial = client.dial(web.at(ip, 8080)).patience(IMPATIENCE);
    dial.ask(Protocol::Udp, "hello").unwrap_err();
    rules::allow(node.namespace(), client.ip(ip), web.ip(ip));
    dial.ask(Protocol::Udp, "hello").unwrap();
}

#[test]
fn two_nodes_do_not_see_each_other() {
    let nodes = [Node::with(Network::bridge()), Node::with(Network::bridge())];
    let pods = nodes.each_ref().map(|node| node.add_pod("web"));
    assert_eq!(pods[0].ip(V4), pods[1].ip(V4));
    for folder in ["/sys/fs/bpf", "/var/lib/cni", "/run/netns"] {
        let touch =
            |node: &Namespace| node.try_feed(&format!("mkdir {folder}/mine"), "").status.success();
        assert!(nodes.iter().all(|node| touch(node.namespace())), "{folder} is shared");
        assert!(!std::path::Path::new(folder).join("mine").exists());
    }
}

#[test]
fn a_race_beside_a_bare_pair_has_every_lane_run() {
    use netplug_tests::bench::{Pace, lanes::Datagrams, race, roads};
    use std::time::Duration;

    let (bare, today) = (roads::Bare::new(), roads::Road::today(3));
    let (client, server) = (today.client.namespace(), today.server.namespace());
    let at = bare.at(V4);
    let mut lanes: Vec<Box<dyn netplug_tests::bench::Lane>> = vec![
        Box::new(Datagrams::new("bare", &bare.client, &bare.server, at, at).unwrap()),
        Box::new(Datagrams::new("today", client, server, today.service(V4), today.at(V4)).unwrap()),
    ];
    let outcomes = race(&mut lanes, Pace { slice: Duration::from_millis(100), rounds: 5 }).unwrap();
    println!("{:?} {:?}", outcomes, outcomes[1].ratio_to(&outcomes[0]));
    assert_eq!(outcomes.len(), 2);
}
