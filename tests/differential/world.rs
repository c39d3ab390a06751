//! A node with two pods, and the world outside of it. Two of these differ in nothing but who gives pods their network and who
//! masquerades.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use netplug_tests::cast::{Family, GATEWAY, INTRANET, NODE_1, NON_MASQUERADE, OUTSIDE, pod_cidr};
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::traffic::{IMPATIENCE, ping};
use serde_json::json;

use crate::place::Place;

/// What the narrow link takes.
const NARROW: u16 = 1_300;
/// The ports of the node that lead to the pods, in their order, and the pods' ports behind them.
pub const HOST_PORT: [(u16, u16); 2] = [(8_001, 9_001), (8_002, 9_002)];

/// One of the two nodes, and what is around it.
pub struct World {
    // Dropped in this order: pods before their node.
    pods: [Pod; 2],
    far: Namespace,
    node: Node,
}

impl World {
    /// A node of netplug's.
    pub fn netplug(masquerade: bool) -> Self {
        let network = Network::netplug();
        let network = if masquerade { network } else { network.with("masquerade", false) };
        Self::of(&Node::with, network)
    }

    /// A node as kubenet made them: Debian's `bridge` and `host-local`, and one rule of the kernel's for each family.
    pub fn kernel() -> Self {
        let make = |network| {
            let node = Node::with(network);
            for ((family, program), exempt) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")]
                .into_iter()
                .zip(NON_MASQUERADE)
            {
                let pods = pod_cidr(family);
                node.namespace().run(&format!(
                    "{program} -w -t nat -A POSTROUTING -s {pods} ! -d {exempt} -o eth0 -j MASQUERADE"
                ));
            }
            for sysctl in FORWARDING {
                node.namespace().set_sysctl(sysctl, "1");
            }
            node
        };
        let mut network = Network::bridge();
        network.plugins.push(json!({"type": "portmap", "snat": true}));
        Self::of(&make, network)
    }

    fn of(make: &dyn Fn(Network) -> Node, network: Network) -> Self {
        let node = make(network.clone());
        let mut added = HOST_PORT.into_iter();
        let pods = ["pod", "other pod"].map(|name| {
            let mut network = network.clone();
            let ports = added.next().expect("there are as many as pods");
            ask_for(&mut network, ports);
            node.add_pod_to(&name.replace(' ', "-"), &network)
        });
        let far = far_behind(&node);
        let world = Self { pods, far, node };
        world.lift_limits();
        world.warm_up();
        world
    }

    /// Waits until every way is open: links and neighbours take their time once.
    fn warm_up(&self) {
        for family in Family::BOTH {
            for pod in &self.pods {
                for to in [Place::Outside, Place::Intranet, Place::Far, Place::Node, Place::Pod] {
                    let to = self.address(to, family, 0);
                    eventually(SOON, || ping(pod.namespace(), to, 1, 8, IMPATIENCE));
                }
                for from in [Place::Outside, Place::Far, Place::Node] {
                    let from = self.namespace(from);
                    eventually(SOON, || ping(from, pod.ip(family), 1, 8, IMPATIENCE));
                }
            }
        }
    }

    /// Takes off the limits that a busy test would come to, on one node before the other: how many errors a second Linux sends,
    /// to one and in all, and how many connections linger.
    fn lift_limits(&self) {
        let [pod, other] = self.pods.each_ref().map(Pod::namespace);
        let outside = self.node.outside().namespace();
        for namespace in [pod, other, outside, &self.far, self.node.namespace()] {
            for (sysctl, value) in LIMITS {
                // Some are a namespace's own only since later kernels.
                if namespace.sysctl(sysctl).is_some() {
                    namespace.set_sysctl(sysctl, value);
                }
            }
        }
    }

    /// The namespace of a place.
    pub fn namespace(&self, place: Place) -> &Namespace {
        match place {
            Place::Pod => self.pods[0].namespace(),
            Place::OtherPod => self.pods[1].namespace(),
            Place::Node => self.node.namespace(),
            Place::Outside | Place::Intranet => self.node.outside().namespace(),
            Place::Far => &self.far,
            Place::Nowhere | Place::Forbidden => unreachable!("nobody is there"),
        }
    }

    /// The address of a place, for program `number`.
    pub fn address(&self, place: Place, family: Family, number: u16) -> IpAddr {
        let fresh = number % 60_000 + 256;
        let [high, low] = fresh.to_be_bytes();
        let own = |v4: Ipv4Addr, v6: Ipv6Addr| match family {
            Family::V4 => IpAddr::V4(v4),
            Family::V6 => IpAddr::V6(v6),
        };
        let net = |net: u16, host: u16| Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host);
        match place {
            Place::Pod => self.pods[0].ip(family),
            Place::OtherPod => self.pods[1].ip(family),
            Place::Node => NODE_1.ip(family),
            Place::Outside => OUTSIDE.ip(family),
            Place::Intranet => INTRANET.ip(family),
            Place::Far => own(Ipv4Addr::new(198, 18, high, low), net(2, fresh)),
            Place::Nowhere => own(Ipv4Addr::new(198, 19, high, low), net(3, fresh)),
            Place::Forbidden => own(Ipv4Addr::new(203, 0, 113, low), net(4, fresh)),
        }
    }

    /// Who has an address, in words: pods may have other addresses on the other node.
    pub fn name(&self, ip: IpAddr, number: u16) -> String {
        let family = Family::of(ip);
        let places = [
            Place::Pod,
            Place::OtherPod,
            Place::Node,
            Place::Outside,
            Place::Intranet,
            Place::Far,
            Place::Nowhere,
            Place::Forbidden,
        ];
        let found = places.into_iter().find(|place| self.address(*place, family, number) == ip);
        match found {
            Some(place) => format!("{place:?}"),
            None if ip == GATEWAY.ip(family) => "Gateway".into(),
            None => ip.to_string(),
        }
    }
}

const FORWARDING: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

const LIMITS: [(&str, &str); 7] = [
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "1000000"),
    ("net/ipv4/tcp_max_tw_buckets", "1000000"),
    // Whether a port may be had again hangs on how much of a second has passed: here it may at once (Linux 6.14).
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/ipv4/tcp_tw_reuse_delay", "1"),
];

/// Has an ADD ask for a port of the node, by every plugin that may be who serves it.
fn ask_for(network: &mut Network, (node, pod): (u16, u16)) {
    let mapping =
        |protocol: &str| json!({"hostPort": node, "containerPort": pod, "protocol": protocol});
    let mappings = json!({"portMappings": [mapping("tcp"), mapping("udp")]});
    for plugin in &mut network.plugins {
        if plugin["type"] == "portmap" || plugin["type"] == "netplug" {
            plugin["capabilities"] = json!({"portMappings": true});
            plugin["runtimeConfig"] = mappings.clone();
        }
    }
}

/// A host behind the outside one. The way there is narrow by its route alone, so that nothing is lost on the way back.
fn far_behind(node: &Node) -> Namespace {
    let outside = node.outside().namespace();
    let path = Path::new("/run/netplug-tests/far");
    let far = node.namespace().sibling("far", path);
    for sysctl in FORWARDING {
        outside.set_sysctl(sysctl, "1");
    }
    // Usable at once: no duplicate address detection.
    far.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    far.set_sysctl("net/ipv4/ip_nonlocal_bind", "1");
    far.set_sysctl("net/ipv6/ip_nonlocal_bind", "1");
    let cable = path.display();
    outside.feed(
        "ip -batch -",
        &format!(
            "link add far type veth peer name eth0 netns {cable}\n\
             address add 198.51.100.1/24 dev far\n\
             address add 2001:db8:f::1/64 dev far nodad\n\
             link set far up\n"
        ),
    );
    far.feed(
        "ip -batch -",
        "link set eth0 up\n\
         address add 198.51.100.2/24 dev eth0\n\
         address add 2001:db8:f::2/64 dev eth0 nodad\n\
         route add default via 198.51.100.1\n\
         route add default via 2001:db8:f::1\n\
         route add local 198.18.0.0/16 dev lo\n\
         route add local 2001:db8:2::/64 dev lo\n",
    );
    outside.feed(
        "ip -batch -",
        &format!(
            "route add 198.18.0.0/16 via 198.51.100.2 mtu {NARROW}\n\
             route add 2001:db8:2::/64 via 2001:db8:f::2 mtu {NARROW}\n\
             route add 198.19.0.0/16 via 198.51.100.2\n\
             route add 2001:db8:3::/64 via 2001:db8:f::2\n\
             route add 203.0.113.0/24 via 198.51.100.2\n\
             route add 2001:db8:4::/64 via 2001:db8:f::2\n"
        ),
    );
    // Not by routes: Linux limits how many errors those bring.
    for (program, to, error) in [
        ("iptables", "198.19.0.0/16", "icmp-net-unreachable"),
        ("iptables", "203.0.113.0/24", "icmp-admin-prohibited"),
        ("ip6tables", "2001:db8:3::/64", "icmp6-no-route"),
        ("ip6tables", "2001:db8:4::/64", "icmp6-adm-prohibited"),
    ] {
        outside.run(&format!("{program} -w -A FORWARD -d {to} -j REJECT --reject-with {error}"));
    }
    far
}
