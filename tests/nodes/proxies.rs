//! Service proxies as they are: rules that a real one wrote, and as many services as large clusters have.

use std::net::SocketAddr;
use std::process::Command;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE};
use netplug_tests::counters::Counters;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{Service, fillers};
use netplug_tests::traffic::Dial;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;
use serde_json::json;

use crate::scene::Steering::Learn;
use crate::scene::{PORT, Proxy};

/// What `iptables-save` showed on a node of Kubernetes 1.20.2 that kube-proxy had written to: a ClusterIP and a NodePort service
/// for two pods; the same among 1,000 services. Each with what restores it.
const SMALL: (&str, &[u8]) =
    ("iptables-restore", include_bytes!("../rules/kube-proxy-1.20-small.rules"));
const LARGE: (&str, &[u8]) = (
    "gzip -dc | iptables-restore",
    include_bytes!("../rules/kube-proxy-1.20-1000-services.rules.gz"),
);

/// The addresses in them.
const PODS: [&str; 2] = ["10.244.0.3", "10.244.0.4"];
const CLUSTER_IP: &str = "10.96.0.80:80";
const NODE_PORT: u16 = 30_080;

/// Both directions are learned.
#[track_caller]
fn is_learned(node: &Node, dial: Dial<'_>, protocol: Protocol) -> (String, std::net::IpAddr) {
    const REQUESTS: usize = 40;
    let before = Counters::of(node);
    let answer = dial.open(protocol).and_then(|mut talk| talk.ask_times(REQUESTS));
    let answer = answer.expect("every question is answered");
    let now = Counters::of(node).since(&before);
    assert!(now.hits() >= REQUESTS as u64 * 3 / 2, "{answer}: {now:?}");
    assert_eq!(now.drops(), 0, "{answer}: {now:?}");
    let seen = answer.client_ip();
    (answer.server, seen)
}

#[rstest]
fn recorded_rules_are_obeyed_and_learned(#[values(SMALL, LARGE)] recorded: (&str, &[u8])) {
    let node = Node::with(Learn.network());
    let network = |ip: &str| node.network().clone().with("args", json!({"cni": {"ips": [ip]}}));
    let pods = PODS.map(|ip| {
        let name = ip.replace('.', "-");
        node.add_pod_to(&name, &network(ip)).listening(PORT)
    });
    let client = node.add_pod("client");
    let (line, rules) = recorded;
    let mut restore = Command::new("sh");
    restore.args(["-c", line]);
    let output = node.namespace().output(restore, rules);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let is_pod = |name: &str| pods.iter().any(|pod| pod.name() == name);
    let service = CLUSTER_IP.parse().unwrap();
    let node_port = SocketAddr::new(NODE_1.ip(V4), NODE_PORT);
    // Often enough that chance picks either pod, or the very one that asks.
    for _ in 0..8 {
        let (server, seen) = is_learned(&node, client.dial(service), Tcp);
        assert!(is_pod(&server));
        assert_eq!(seen, client.ip(V4));
        let (server, seen) = is_learned(&node, node.outside().dial(node_port), Tcp);
        assert!(is_pod(&server));
        assert_ne!(seen, OUTSIDE.ip(V4));
        let [asking, _] = &pods;
        let (server, seen) = is_learned(&node, asking.dial(service), Tcp);
        assert_eq!(seen == asking.ip(V4), server != asking.name(), "{server} saw {seen}");
    }
}

/// As many as the largest clusters are tested with (Kubernetes' own limit), ours among them.
#[rstest]
fn one_of_ten_thousand_services_is_like_any(
    #[values(V4, V6)] ip: Family,
    #[values(Proxy::Iptables, Proxy::Nftables)] proxy: Proxy,
) {
    const SERVICES: usize = 10_000;
    let node = Node::with(Learn.network());
    let [web, client]: [Pod; 2] = ["web", "client"].map(|name| node.add_pod(name).listening(PORT));
    let mut services = fillers(ip, SERVICES);
    if proxy == Proxy::Nftables {
        services.iter_mut().for_each(|service| service.backends.truncate(1));
    }
    let ours = Service::both(80, &[web.at(ip, PORT)]);
    let at = ours[0].at;
    // iptables asks one after the other; the last is the one that all were asked before.
    services.extend(ours);
    proxy.serve(node.namespace(), &services);
    for protocol in [Tcp, Udp] {
        let (server, seen) = is_learned(&node, client.dial(at), protocol);
        assert_eq!((server.as_str(), seen), ("web", client.ip(ip)));
        let (_, seen) = is_learned(&node, web.dial(at), protocol);
        assert_ne!(seen, web.ip(ip));
    }
}
