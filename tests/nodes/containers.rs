//! A bridge of others', with containers on it by plain veths: as docker, podman and libvirt make them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netplug_tests::cast::{Actor, Family, SERVICE};
use netplug_tests::namespace::Namespace;
use netplug_tests::node::Node;
use netplug_tests::rules::{self, Service};
use netplug_tests::traffic::{Dial, Protocol, Servers};

use crate::scene::PORT;

/// The bridge.
pub const BRIDGE: &str = "docker0";

/// Makes the bridge, up and with an address of each family, in the cluster's networks: kube-proxy masquerades none of it.
pub fn add_bridge(node: &Node) {
    add_bridge_without_address(node);
    for family in Family::BOTH {
        let nodad = if family == Family::V6 { "nodad" } else { "" };
        let address = address(family, 1);
        let prefix = if family == Family::V4 { 24 } else { 64 };
        node.namespace().run(&format!("ip address add {address}/{prefix} dev {BRIDGE} {nodad}"));
    }
}

pub fn add_bridge_without_address(node: &Node) {
    node.namespace().run(&format!("ip link add {BRIDGE} type bridge"));
    // The host asks for no neighbour before it has a link-local address that it may use.
    node.namespace().set_sysctl(&format!("net/ipv6/conf/{BRIDGE}/accept_dad"), "0");
    node.namespace().run(&format!("ip link set {BRIDGE} up"));
}

/// An address of the bridge's networks.
pub fn address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, 77, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x244, 0, 0x77, 0, 0, 0, number.into()).into(),
    }
}

/// A container, which answers on [`PORT`].
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    _servers: Servers,
    number: u8,
}

impl Container {
    /// Number `number` of 2 to 99, on the bridge. By it go its name, addresses and MACs.
    pub fn add(node: &Node, number: u8) -> Self {
        let name = format!("c{number}");
        let namespace = node.namespace().pod(&name);
        namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
        let host = node.namespace();
        let [outer, inner] = [0xfe, 0x02].map(|first| mac_text(mac(first, number)));
        host.run(&format!(
            "ip link add veth{number} address {outer} type veth peer name eth0 address {inner} netns {name}"
        ));
        namespace.run("ip link set eth0 up");
        host.run(&format!("ip link set veth{number} up master {BRIDGE}"));
        let servers = Servers::default();
        for family in Family::BOTH {
            let prefix = if family == Family::V4 { 24 } else { 64 };
            let ip = address(family, number);
            let nodad = if family == Family::V6 { "nodad" } else { "" };
            namespace.run(&format!("ip address add {ip}/{prefix} dev eth0 {nodad}"));
            namespace.run(&format!("ip route add default via {} dev eth0", address(family, 1)));
            servers.start(&namespace, &name, SocketAddr::new(ip, PORT));
        }
        Self { namespace, _servers: servers, number }
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name of its port.
    pub fn port(&self) -> String {
        format!("veth{}", self.number)
    }

    pub fn ip(&self, family: Family) -> IpAddr {
        address(family, self.number)
    }

    pub fn dial(&self, to: SocketAddr) -> Dial<'_> {
        Dial::new(&self.namespace, to)
    }

    /// Itself as one of the cast.
    pub fn actor(&self) -> Actor {
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (self.ip(Family::V4), self.ip(Family::V6)) else {
            unreachable!()
        };
        Actor { name: "container", v4, v6, mac: mac(2, self.number) }
    }

    /// Has it be the only one that serves.
    pub fn serve(&self, node: &Node) {
        let backends = Family::BOTH.map(|family| SocketAddr::new(self.ip(family), PORT));
        let services: Vec<_> =
            backends.iter().flat_map(|backend| Service::both(80, &[*backend])).collect();
        rules::serve(node.namespace(), &services);
    }

    /// Asks the service, which must answer as such, and see who asks.
    pub fn asks_service(
        &self,
        family: Family,
        protocol: Protocol,
        times: usize,
    ) -> std::io::Result<String> {
        let to = SocketAddr::new(SERVICE.ip(family), 80);
        let patience = netplug_tests::traffic::IMPATIENCE;
        let answer = self.dial(to).patience(patience).open(protocol)?.ask_times(times)?;
        assert_eq!(answer.client_ip(), self.ip(family), "nothing masquerades it");
        Ok(answer.server)
    }

    /// Takes it away, as its runtime does.
    pub fn remove(self, node: &Node) {
        let (port, path) = (self.port(), Namespace::pod_path(self.namespace.name()));
        drop(self);
        node.namespace().run(&format!("ip link del {port}"));
        node.namespace().run(&format!("umount {}", path.display()));
        node.namespace().run(&format!("rm {}", path.display()));
    }
}

/// The higher the number, the lower the MAC of the port: a bridge takes the lowest.
fn mac(first: u8, number: u8) -> [u8; 6] {
    [first, b'c', b'n', b't', 0, if first == 2 { number } else { 200 - number }]
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// The MAC of a link.
pub fn mac_of(node: &Node, link: &str) -> String {
    let shown = node.namespace().run(&format!("ip -json link show {link}"));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("ip prints JSON");
    shown[0]["address"].as_str().expect("it has a MAC").into()
}
