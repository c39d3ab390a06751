//! The node, who is on it, and what is known of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netplug_tests::cast::{Family, NODE_1, SERVICE};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{self, Service};
use netplug_tests::traffic::Protocol;
use serde_json::json;

use crate::asking::Way;
use crate::known::{Known, REVISIT};

/// Where pods and the outside listen.
pub const PORT: u16 = 8080;
/// The node's port that leads to `ported`.
pub const HOST_PORT: u16 = 9_000;
/// How many services there are; each has servers of its own, so that no other's may answer for it.
pub const SERVICES: u16 = 3;
/// And how many servers.
const SERVERS: usize = 3;

/// Where walls are built: a firewall beside the proxy's rules, which are replaced as a whole.
const WALLS: &str = "table inet walls {
    set v4 { type ipv4_addr . ipv4_addr; }
    set v6 { type ipv6_addr . ipv6_addr; }
    chain forward {
        type filter hook forward priority -10; policy accept;
        ip saddr . ip daddr @v4 drop
        ip6 saddr . ip6 daddr @v6 drop
    }
}
";

/// A node under change.
pub struct World {
    /// The node.
    pub node: Node,
    /// Who asks.
    pub clients: [Pod; 2],
    /// Who serves a service, by its number.
    pub servers: Vec<Vec<Pod>>,
    /// Whom nobody of `clients` may ask at times.
    pub walled: Pod,
    /// Who is asked by a port of the node's.
    pub ported: Pod,
    /// Who is replaced by others.
    pub passing: Mutex<Option<Pod>>,
    /// The names of the servers that the rules lead to.
    serving: Mutex<BTreeSet<String>>,
    /// Which servers serve, by their names; which pods pass, by name and addresses; where walls are, by their ends.
    pub known: Known,
    /// Questions by each way.
    pub asked: [AtomicU64; Way::ALL.len()],
    /// Datagrams that were not answered, and were sent again.
    pub lost: AtomicU64,
}

impl World {
    pub fn new() -> Self {
        let network = Network::netplug().with("revisit", format!("{}s", REVISIT.as_secs()));
        let node = Node::with(network.clone());
        node.outside().listen(PORT);
        let add = |name: &str| node.add_pod(name).listening(PORT);
        let clients = ["c-0", "c-1"].map(add);
        let servers = (0..SERVICES)
            .map(|service| (0..SERVERS).map(|n| add(&format!("s-{service}-{n}"))).collect())
            .collect();
        let walled = add("walled");
        let mappings: Vec<_> = Protocol::BOTH
            .map(|protocol| json!({"hostPort": HOST_PORT, "containerPort": PORT, "protocol": protocol.name()}))
            .into();
        let with_port = network.with("runtimeConfig", json!({ "portMappings": mappings }));
        let ported = node.add_pod_to("ported", &with_port).listening(PORT);
        let world = Self {
            node,
            clients,
            servers,
            walled,
            ported,
            passing: Mutex::default(),
            serving: Mutex::default(),
            known: Known::default(),
            asked: Default::default(),
            lost: AtomicU64::default(),
        };
        for servers in &world.servers {
            world.known.begins(servers[0].name());
            world.serving().insert(servers[0].name().into());
        }
        world.write_rules();
        crate::changing::pass(&world, 0);
        world.node.namespace().feed("nft -f -", WALLS);
        for (client, family) in world.clients.iter().flat_map(|c| Family::BOTH.map(|f| (c, f))) {
            world.known.begins(&format!("gap {}", client.ip(family)));
        }
        world
    }

    /// See the field.
    pub fn serving(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the rules of all services anew, for the servers that serve now.
    pub fn write_rules(&self) {
        let serving = self.serving();
        let mut services = Vec::new();
        for (number, servers) in (0..SERVICES).zip(&self.servers) {
            for family in Family::BOTH {
                let backends: Vec<_> = servers
                    .iter()
                    .filter(|pod| serving.contains(pod.name()))
                    .map(|pod| pod.at(family, PORT))
                    .collect();
                services.extend(Service::both(81 + number, &backends).into_iter().map(|service| {
                    let service = service.node_port(node_port(number));
                    // The last one's callers from outside stay who they are.
                    if number + 1 == SERVICES { service.local() } else { service }
                }));
            }
        }
        rules::serve(self.node.namespace(), &services);
    }

    /// Where a service is, within the cluster.
    pub fn service(number: u16, family: Family) -> SocketAddr {
        SocketAddr::new(SERVICE.ip(family), 81 + number)
    }

    /// Where it is on the node.
    pub fn node_port(number: u16, family: Family) -> SocketAddr {
        SocketAddr::new(NODE_1.ip(family), node_port(number))
    }
}

const fn node_port(number: u16) -> u16 {
    30_081 + number
}
