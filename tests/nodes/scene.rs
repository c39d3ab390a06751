//! What most scenarios begin with.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use netplug::datapath::{Attach, Endpoint, Owner, PodId};
use netplug_tests::cast::{Actor, Family, SERVICE};
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{self, Service};
use netplug_tests::traffic::Protocol;
use serde_json::json;

/// The setting `steering`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    Learn,
    Always,
    Direct,
}

impl Steering {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Learn => "learn",
            Self::Always => "always",
            Self::Direct => "direct",
        }
    }

    pub fn network(self) -> Network {
        Network::netplug().with("steering", self.name())
    }
}

/// Who writes the service's rules, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    Iptables,
    Nftables,
}

impl Proxy {
    /// Has it serve `services`, and no others.
    #[track_caller]
    pub fn serve(self, node: &Namespace, services: &[Service]) {
        match self {
            Self::Iptables => rules::serve(node, services),
            Self::Nftables => rules::serve_by_nftables(node, services),
        }
    }
}

/// Where pods listen.
pub const PORT: u16 = 8080;
/// Where the node serves them.
pub const NODE_PORT: u16 = 30080;

/// The network of a pod that is reached by ports of the node, each with the pod's own, for TCP and UDP.
pub fn with_host_ports(network: Network, ports: &[(u16, u16)]) -> Network {
    let mappings: Vec<_> = Protocol::BOTH
        .into_iter()
        .flat_map(|protocol| {
            ports.iter().map(move |(host, pod)| {
                json!({"hostPort": host, "containerPort": pod, "protocol": protocol.name()})
            })
        })
        .collect();
    network.with("runtimeConfig", json!({"portMappings": mappings}))
}

/// A pod as one of the cast.
pub fn actor(pod: &Pod) -> Actor {
    let link = pod.namespace().run("ip -json link show eth0");
    let link: serde_json::Value = serde_json::from_str(&link).expect("ip prints JSON");
    let mut mac = [0; 6];
    let text = link[0]["address"].as_str().expect("a veth has a MAC");
    for (octet, text) in mac.iter_mut().zip(text.split(':')) {
        *octet = u8::from_str_radix(text, 16).expect("a MAC is of hexadecimal numbers");
    }
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (pod.ip(Family::V4), pod.ip(Family::V6)) else {
        unreachable!()
    };
    Actor { name: "pod", v4, v6, mac }
}

/// What an ADD registers, behind an interface that leads nowhere.
pub fn endpoint(node: &Node, name: &str, address: IpAddr) -> Endpoint {
    node.namespace().run(&format!("ip link add {name} type veth peer name {name}-peer"));
    let shown = node.namespace().run(&format!("ip -json link show {name}"));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
    Endpoint {
        ifindex: shown[0]["ifindex"]
            .as_u64()
            .expect("it has an index")
            .try_into()
            .expect("of 32 bits"),
        owner: Owner::of("pods", name, "eth0"),
        pod: PodId::of(name),
        bridge: None,
        gateway_mac: [2, 0, 0, 0, 0, 1],
        pod_mac: [2, 0, 0, 0, 0, 2],
        addresses: vec![address],
        unrouted: Vec::new(),
        source_guard: true,
        attach: Attach::Clsact,
    }
}

/// Returns when somebody waits for a lock of netplug's, by its file's name.
#[track_caller]
pub fn waits_for(node: &Node, lock: &str) {
    awaits(node, lock, true);
}

/// Returns when nobody does.
#[track_caller]
pub fn waits_no_more_for(node: &Node, lock: &str) {
    awaits(node, lock, false);
}

#[track_caller]
fn awaits(node: &Node, lock: &str, wanted: bool) {
    let path = format!("/run/netplug/{lock}");
    let file = node.namespace().enter(|| std::fs::metadata(path)).expect("it was locked before");
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", file.ino());
    eventually(SOON, || {
        // proc_locks(5): who waits has an arrow.
        let locks = std::fs::read_to_string("/proc/locks").expect("procfs is mounted");
        let is_waiting = locks.lines().map(|line| line.split_whitespace()).any(|mut words| {
            words.clone().any(|word| word == "->") && words.any(|word| word == file)
        });
        if is_waiting == wanted { Ok(()) } else { Err(locks) }
    });
}

/// A client, and a web pod with a service of each transport and family.
pub struct Scene {
    pub node: Node,
    pub web: Pod,
    pub client: Pod,
}

impl Scene {
    pub fn new(network: Network) -> Self {
        Self::served_by(network, Proxy::Iptables)
    }

    pub fn steered(steering: Steering) -> Self {
        Self::new(steering.network())
    }

    pub fn served_by(network: Network, proxy: Proxy) -> Self {
        let node = Node::with(network);
        let web = node.add_pod("web").listening(PORT);
        let client = node.add_pod("client").listening(PORT);
        proxy.serve(node.namespace(), &services_of(&web));
        Self { node, web, client }
    }

    /// Writes the rules of its services anew, as a proxy does when one changes.
    pub fn reload_rules(&self) {
        rules::serve(self.node.namespace(), &services_of(&self.web));
    }

    /// Where the service is.
    pub fn service(&self, family: Family) -> SocketAddr {
        SocketAddr::new(SERVICE.ip(family), 80)
    }
}

fn services_of(web: &Pod) -> Vec<Service> {
    let services =
        Family::BOTH.into_iter().flat_map(|family| Service::both(80, &[web.at(family, PORT)]));
    services.map(|service| service.node_port(NODE_PORT)).collect()
}
