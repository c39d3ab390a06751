//! netplug after Debian's `bridge` and `ptp`.

use std::net::SocketAddr;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NODE_1, OUTSIDE};
use netplug_tests::counters::endpoints;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::rules::{self, Service};
use netplug_tests::runtime::{Verb, config};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;

use crate::scene::PORT;

#[rstest]
fn chained_pods_have_every_way_that_others_have(
    #[values("bridge", "ptp")] after: &str,
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::new();
    let alone = node.add_pod("alone").listening(PORT);
    let chained = node.add_pod_chained("chained", after).listening(PORT);
    let other = node.add_pod_chained("other", after).listening(PORT);
    node.outside().listen(PORT);
    let mut services = Service::both(80, &[chained.at(ip, PORT)]);
    services.extend(Service::both(81, &[alone.at(ip, PORT)]));
    let [by, to_alone] = [services[0].at, services[2].at];
    rules::serve(node.namespace(), &services);
    let outside = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let intranet = SocketAddr::new(INTRANET.ip(ip), PORT);
    for (from, to, server, seen) in [
        (&alone, chained.at(ip, PORT), "chained", Some(alone.ip(ip))),
        (&chained, alone.at(ip, PORT), "alone", Some(chained.ip(ip))),
        (&chained, other.at(ip, PORT), "other", Some(chained.ip(ip))),
        (&alone, by, "chained", Some(alone.ip(ip))),
        (&other, by, "chained", Some(other.ip(ip))),
        (&chained, to_alone, "alone", Some(chained.ip(ip))),
        (&chained, by, "chained", None),
        (&chained, outside, OUTSIDE.name, Some(NODE_1.ip(ip))),
        (&chained, intranet, INTRANET.name, Some(chained.ip(ip))),
    ] {
        let answer = from.dial(to).open(protocol).and_then(|mut talk| talk.ask_times(30));
        let answer = answer.unwrap_or_else(|error| panic!("{} → {to}: {error}", from.name()));
        assert_eq!(answer.server, server, "{} → {to}", from.name());
        if let Some(seen) = seen {
            assert_eq!(answer.client_ip(), seen, "{} → {to}", from.name());
        }
    }
    let answer =
        node.outside().dial(chained.at(ip, PORT)).open(protocol).unwrap().ask_times(30).unwrap();
    assert_eq!(answer.client_ip(), OUTSIDE.ip(ip));
}

#[rstest]
fn the_result_of_the_chain_loses_nothing(#[values("bridge", "ptp")] after: &str) {
    let node = Node::new();
    let chained = node.add_pod_chained("chained", after);
    assert_eq!(chained.result()["ips"].as_array().unwrap().len(), 2);
    assert!(chained.result()["routes"].as_array().is_some_and(|routes| routes.len() >= 2));
    node.check(&chained).unwrap();
    let host_end = chained.host_end();
    assert!(endpoints(&node).iter().any(|endpoint| endpoint.interface == host_end));
    node.del_pod(chained);
    assert!(endpoints(&node).is_empty());
    node.finish();
}

#[test]
fn adding_a_chained_container_twice_is_refused_and_the_first_stays_whole() {
    let node = Node::new();
    let network = Network::bridge().then_netplug();
    let web = node.add_pod_to("web", &network).listening(PORT);
    let config = config(&network, &network.plugins[1], Some(web.result()));
    let add = |of| node.runtime().call(node.namespace(), Verb::Add, "netplug", of, &config);
    let error = add(web.attachment()).unwrap_err();
    assert_eq!(error.code, 101, "{error}");
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "whole?").unwrap();
    node.del_pod(web);
    node.assert_clean();
}
