//! Nodes of every kind, each with a pod that serves, one that asks, and an outside host.

use std::net::{IpAddr, SocketAddr};

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{BALANCER, EXTERNAL, INTRANET, NODE_1, OUTSIDE, cluster_cidr};
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::runtime::{Attachment, addresses};
use netplug_tests::traffic::Servers;
use serde_json::json;

use crate::scene::PORT;

/// What is particular about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: netplug alone, one bridge, one uplink.
    Alone,
    /// netplug comes after the `bridge` plugin.
    BehindBridge,
    /// netplug comes after `ptp`: no bridge at all.
    BehindPtp,
    /// The pod that serves is of another network, on a bridge of its own.
    SecondBridge,
    /// All that is outside is behind a second uplink, and the default route is not.
    SecondUplink,
    /// What comes in comes by the second uplink, and what goes out goes by the first.
    OneUplinkInAndOneOut,
    /// The uplink is a VLAN.
    VlanUplink,
    /// Both pods have an interface in another network, and the one serves by its address there; the default route is the
    /// first's.
    SecondInterface,
}

/// A node of a kind.
pub struct Place {
    pub node: Node,
    pub web: Pod,
    pub client: Pod,
    kind: Kind,
    /// What pods have in the second network.
    second: Vec<[IpAddr; 2]>,
    _servers: Servers,
}

impl Place {
    /// `None` where this kernel has none of the kind.
    pub fn of(kind: Kind) -> Option<Self> {
        let node = Node::with(match kind {
            Kind::BehindBridge => Network::bridge().then_netplug(),
            Kind::BehindPtp => Network::ptp().then_netplug(),
            Kind::SecondUplink | Kind::OneUplinkInAndOneOut => {
                Network::netplug().with("uplinks", json!(["eth0", "eth1"]))
            }
            _ => Network::netplug(),
        });
        match kind {
            Kind::VlanUplink => tag(&node).then_some(())?,
            Kind::SecondUplink | Kind::OneUplinkInAndOneOut => lay_second_cable(&node, kind),
            _ => lead(&node, NODE_1.ip(V4), NODE_1.ip(V6)),
        }
        node.outside().listen(PORT);
        let web = match kind {
            Kind::SecondBridge => node.add_pod_to("web", &second_network()),
            _ => node.add_pod("web"),
        };
        let client = node.add_pod("client");
        let (mut second, servers) = (Vec::new(), Servers::default());
        if kind == Kind::SecondInterface {
            second.extend([&web, &client].map(|pod| add_second(&node, pod)));
            for ip in second[0] {
                servers.start(web.namespace(), web.name(), SocketAddr::new(ip, PORT));
            }
        }
        if matches!(kind, Kind::SecondUplink | Kind::OneUplinkInAndOneOut) {
            for ip in Family::BOTH {
                let at = SocketAddr::new(second_cable(ip)[1], PORT);
                servers.start(node.outside().namespace(), OUTSIDE.name, at);
            }
        }
        web.listen(PORT);
        Some(Self { node, web, client, kind, second, _servers: servers })
    }

    /// The address by which the one pod serves.
    pub fn web_ip(&self, ip: Family) -> IpAddr {
        self.second_ip(0, ip).unwrap_or_else(|| self.web.ip(ip))
    }

    /// The address that the other asks it from.
    pub fn client_towards_web(&self, ip: Family) -> IpAddr {
        self.second_ip(1, ip).unwrap_or_else(|| self.client.ip(ip))
    }

    fn second_ip(&self, pod: usize, ip: Family) -> Option<IpAddr> {
        self.second.get(pod)?.iter().copied().find(|address| Family::of(*address) == ip)
    }

    /// The node's address, as the outside has it.
    pub fn node_ip(&self, ip: Family) -> IpAddr {
        if self.kind == Kind::SecondUplink { second_cable(ip)[0] } else { NODE_1.ip(ip) }
    }

    /// The outside's, as the node has it.
    pub fn outside_ip(&self, ip: Family) -> IpAddr {
        if self.kind == Kind::SecondUplink { second_cable(ip)[1] } else { OUTSIDE.ip(ip) }
    }

    /// Whether a pod that asks its own service is masqueraded: by its second address it is, to the proxy, another.
    pub fn has_hairpins(&self) -> bool {
        self.kind != Kind::SecondInterface
    }
}

/// A network beside the first, on a bridge of its own.
fn second_network() -> Network {
    let ranges = json!([[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:244:0:7::/64"}]]);
    Network::netplug()
        .named("second")
        .with("bridge", "cbr1")
        .with("ipam", json!({"type": "host-local", "ranges": ranges}))
}

/// Gives a pod an interface in the second network.
fn add_second(node: &Node, pod: &Pod) -> [IpAddr; 2] {
    let second = Attachment { interface: "net1".into(), ..pod.attachment().clone() };
    let result = node.runtime().add(node.namespace(), &second_network(), &second);
    let result = result.unwrap_or_else(|error| panic!("ADD of {}: {error}", pod.name()));
    addresses(&result).try_into().expect("one of each family")
}

/// The outside sends to pods and to what is led here by these addresses of the node's.
fn lead(node: &Node, v4: IpAddr, v6: IpAddr) {
    for (ip, via) in [(V4, v4), (V6, v6)] {
        for to in [cluster_cidr(ip), &EXTERNAL.ip(ip).to_string(), &BALANCER.ip(ip).to_string()] {
            node.outside().namespace().run(&format!("ip route replace {to} via {via}"));
        }
    }
}

/// The node's address on the second cable, and the outside's.
fn second_cable(ip: Family) -> [IpAddr; 2] {
    match ip {
        V4 => [1, 2].map(|host| IpAddr::from([203, 0, 113, host])),
        V6 => [1, 2].map(|host| IpAddr::from([0x2001, 0xdb8, 3, 0, 0, 0, 0, host])),
    }
}

fn lay_second_cable(node: &Node, kind: Kind) {
    let outside = node.outside().namespace();
    node.namespace()
        .run("ip link add eth1 type veth peer name eth1 netns /run/netplug-tests/outside");
    for (end, at) in [(node.namespace(), 0), (outside, 1)] {
        let [v4, v6] = Family::BOTH.map(|ip| second_cable(ip)[at]);
        end.feed(
            "ip -batch -",
            &format!(
                "address add {v4}/24 dev eth1\n\
                 address add {v6}/64 dev eth1 nodad\n\
                 link set eth1 up\n"
            ),
        );
    }
    for end in [node.namespace(), outside] {
        is_up(end, "eth1");
    }
    let [v4, v6] = Family::BOTH.map(|ip| second_cable(ip)[0]);
    lead(node, v4, v6);
    for ip in Family::BOTH {
        let [here, there] = second_cable(ip);
        if kind == Kind::SecondUplink {
            node.namespace().run(&format!("ip route add {} via {there}", INTRANET.ip(ip)));
        } else {
            outside.run(&format!("ip route add {} via {here} dev eth1", NODE_1.ip(ip)));
        }
    }
}

/// Puts both ends of the cable into a VLAN, with all that they have; whether the kernel can.
fn tag(node: &Node) -> bool {
    let outside = node.outside().namespace();
    for (end, actor, other) in [(node.namespace(), NODE_1, OUTSIDE), (outside, OUTSIDE, NODE_1)] {
        let made = end.try_feed("ip link add link eth0 name eth0.7 type vlan id 7", "");
        if !made.status.success() {
            return false;
        }
        end.feed(
            "ip -batch -",
            &format!(
                "address del {}/24 dev eth0\n\
                 address del {}/64 dev eth0\n\
                 address add {}/24 dev eth0.7\n\
                 address add {}/64 dev eth0.7 nodad\n\
                 link set eth0.7 up\n",
                actor.v4, actor.v6, actor.v4, actor.v6
            ),
        );
        if actor == NODE_1 {
            for ip in Family::BOTH {
                let flag = if ip == V4 { "-4" } else { "-6" };
                end.run(&format!("ip {flag} route replace default via {}", other.ip(ip)));
            }
        }
    }
    for end in [node.namespace(), outside] {
        is_up(end, "eth0.7");
    }
    lead(node, NODE_1.ip(V4), NODE_1.ip(V6));
    true
}

/// Until the kernel has looked at its carrier, a device drops what it is to send; then it gets its link-local address.
fn is_up(end: &netplug_tests::namespace::Namespace, device: &str) {
    eventually(SOON, || {
        let shown = end.run(&format!("ip address show {device}"));
        let is_ready = shown.contains("state UP") && shown.contains("scope link");
        if is_ready { Ok(()) } else { Err(shown) }
    });
}
