//! Where lanes run: a bare veth pair, today's node, a node of netplug's.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::json;

use crate::cast::{CLIENT, Family, NODE_1, OUTSIDE, SERVICE, WEB};
use crate::namespace::Namespace;
use crate::network::Network;
use crate::node::Node;
use crate::pod::Pod;
use crate::rules::{self, Service};

/// The port that pods serve, and that their service has.
pub const PORT: u16 = 8080;

/// The first of the node's ports that lead to a pod, and where they lead.
const HOST_PORT: u16 = 9_100;
const POD_PORT: u16 = 8_090;

/// Has an ADD ask for them, by whichever plugin serves them.
pub fn with_host_ports(mut network: Network) -> Network {
    let mapping = |number: u16, protocol: &str| {
        json!({
            "hostPort": HOST_PORT + number, "containerPort": POD_PORT + number, "protocol": protocol
        })
    };
    let mappings: Vec<_> = [0, 1]
        .into_iter()
        .flat_map(|number| ["tcp", "udp"].map(|protocol| mapping(number, protocol)))
        .collect();
    for plugin in &mut network.plugins {
        if plugin["type"] == "portmap" || plugin["type"] == "netplug" {
            plugin["capabilities"] = json!({"portMappings": true});
            plugin["runtimeConfig"] = json!({"portMappings": mappings});
        }
    }
    network
}

/// Two namespaces joined by a veth pair: what no node network can beat.
#[derive(Debug)]
pub struct Bare {
    /// Who asks.
    pub client: Namespace,
    /// Who is asked.
    pub server: Namespace,
}

impl Bare {
    /// Joins them.
    #[must_use]
    pub fn new() -> Self {
        let client = Namespace::machine("bare");
        let path = Path::new("/run/netplug-tests/peer");
        let server = client.sibling("peer", path);
        client.run(&format!("ip link add eth0 type veth peer name eth0 netns {}", path.display()));
        for (end, actor) in [(&client, CLIENT), (&server, WEB)] {
            end.feed(
                "ip -batch -",
                &format!(
                    "link set lo up\naddress add {}/24 dev eth0\naddress add {}/64 dev eth0 nodad\nlink set eth0 up\n",
                    actor.v4, actor.v6
                ),
            );
        }
        Self { client, server }
    }

    /// Where the server is.
    #[must_use]
    pub const fn at(&self, family: Family) -> SocketAddr {
        SocketAddr::new(WEB.ip(family), PORT)
    }
}

impl Default for Bare {
    fn default() -> Self {
        Self::new()
    }
}

/// A node with a client, a server and a service for it among `fillers` others.
#[derive(Debug)]
pub struct Road {
    /// The node.
    pub node: Node,
    /// Who asks.
    pub client: Pod,
    /// Who is asked.
    pub server: Pod,
    /// Who is asked by ports of the node.
    pub ported: Pod,
}

impl Road {
    /// netplug alone, with `bridge-nf-call-iptables=0`.
    #[must_use]
    pub fn netplug(fillers: usize) -> Self {
        Self::of(Network::netplug(), false, fillers)
    }

    /// Debian's `bridge`, with `bridge-nf-call-iptables=1` where this kernel has br_netfilter, and the kernel's
    /// MASQUERADE as kubenet wrote it.
    #[must_use]
    pub fn today(fillers: usize) -> Self {
        let mut network = Network::bridge();
        network.plugins.push(json!({"type": "portmap", "snat": true}));
        let road = Self::of(network, true, fillers);
        let namespace = road.node.namespace();
        namespace.run("iptables -w -t nat -A POSTROUTING -m addrtype ! --dst-type LOCAL ! -d 10.0.0.0/8 -j MASQUERADE");
        namespace.run("ip6tables -w -t nat -A POSTROUTING -m addrtype ! --dst-type LOCAL ! -d fd00::/8 -j MASQUERADE");
        road
    }

    fn of(network: Network, bridge_netfilter: bool, fillers: usize) -> Self {
        let node = Node::with(network);
        let (client, server) = (node.add_pod("client"), node.add_pod("server"));
        let mut services = Vec::new();
        for family in Family::BOTH {
            services.extend(Service::both(PORT, &[server.at(family, PORT)]));
        }
        services
            .extend(Family::BOTH.into_iter().flat_map(|family| rules::fillers(family, fillers)));
        rules::serve(node.namespace(), &services);
        // Behind the rules, which take those of portmap away that they find.
        let ported = node.add_pod_to("ported", &with_host_ports(node.network().clone()));
        node.bridge_netfilter(bridge_netfilter);
        Self { node, client, server, ported }
    }

    /// Where the server is.
    #[must_use]
    pub fn at(&self, family: Family) -> SocketAddr {
        self.server.at(family, PORT)
    }

    /// Where its service is.
    #[must_use]
    pub fn service(&self, family: Family) -> SocketAddr {
        SocketAddr::new(SERVICE.ip(family), PORT)
    }

    /// A port of the node that leads to a pod, and where there; `number` is 0 or 1.
    #[must_use]
    pub fn host_port(&self, family: Family, number: u16) -> (SocketAddr, SocketAddr) {
        let to = SocketAddr::new(NODE_1.ip(family), HOST_PORT + number);
        (to, self.ported.at(family, POD_PORT + number))
    }

    /// Where the outside host listens.
    #[must_use]
    pub fn outside(&self, family: Family) -> SocketAddr {
        let outside: IpAddr = OUTSIDE.ip(family);
        SocketAddr::new(outside, PORT)
    }
}
