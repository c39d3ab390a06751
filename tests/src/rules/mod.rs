//! The rules that others write into a node: service proxies and firewalls. netplug itself writes none.

mod firewall;
mod iptables;
mod nftables;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use firewall::{allow, forbid, forbidden};
pub use iptables::kube_proxy;
pub use nftables::kube_proxy_nftables;

use crate::cast::{Family, SERVICE};
use crate::namespace::Namespace;
use crate::traffic::Protocol;

/// One port of a service, of one family and transport, as a proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `namespace/name`, which goes into comments and chain names.
    pub name: String,
    /// The transport.
    pub protocol: Protocol,
    /// The cluster address and port.
    pub at: SocketAddr,
    /// The port of the node at which it is served, too.
    pub node_port: Option<u16>,
    /// The pods that serve it, with their port.
    pub backends: Vec<SocketAddr>,
    /// Addresses that are led to the node for it to be called by (`externalIPs`).
    pub external: Vec<IpAddr>,
    /// The same, as a load balancer says (`status.loadBalancer.ingress`).
    pub balancers: Vec<IpAddr>,
    /// `externalTrafficPolicy: Local`: those of `backends` that are this node's. Who calls from outside gets one of them, and
    /// stays who it is.
    pub local: Option<Vec<SocketAddr>>,
    /// `sessionAffinity: ClientIP`: for how many seconds a client stays with its backend.
    pub affinity: Option<u32>,
}

impl Service {
    /// The service of the cast at `port`, served by `backends`.
    #[must_use]
    pub fn new(protocol: Protocol, port: u16, backends: &[SocketAddr]) -> Self {
        let family = backends.first().map_or(Family::V4, |backend| Family::of(backend.ip()));
        Self {
            name: format!("default/web-{protocol}-{port}"),
            protocol,
            at: SocketAddr::new(SERVICE.ip(family), port),
            node_port: None,
            backends: backends.to_vec(),
            external: Vec::new(),
            balancers: Vec::new(),
            local: None,
            affinity: None,
        }
    }

    /// The service, at a port of the node as well.
    #[must_use]
    pub fn node_port(self, port: u16) -> Self {
        Self { node_port: Some(port), ..self }
    }

    /// The service, at addresses of elsewhere as well.
    #[must_use]
    pub fn led_here(self, external: IpAddr, balancer: IpAddr) -> Self {
        Self { external: vec![external], balancers: vec![balancer], ..self }
    }

    /// The service, whose callers from outside stay who they are: all of its backends are this node's.
    #[must_use]
    pub fn local(self) -> Self {
        Self { local: Some(self.backends.clone()), ..self }
    }

    /// The service, whose clients stay with their backends for an hour.
    #[must_use]
    pub fn affine(self) -> Self {
        Self { affinity: Some(3_600), ..self }
    }

    /// A service of each transport for the same backends.
    #[must_use]
    pub fn both(port: u16, backends: &[SocketAddr]) -> Vec<Self> {
        Protocol::BOTH.map(|protocol| Self::new(protocol, port, backends)).into()
    }

    /// The family of its addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.at.ip())
    }
}

/// `count` services of two backends each that nobody asks for: what a busy cluster's rules are full of.
#[must_use]
pub fn fillers(family: Family, count: usize) -> Vec<Service> {
    let address = |block: u16, number: usize| -> IpAddr {
        let number = u16::try_from(number).expect("fewer fillers than a block has addresses");
        let [high, low] = number.to_be_bytes();
        match family {
            Family::V4 => Ipv4Addr::new(10, block.to_be_bytes()[1], high, low).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, block, 0, 0, 0, 0, 1, number).into(),
        }
    };
    let backend = |number| SocketAddr::new(address(200, number), 8080);
    let filler = |number: usize| Service {
        name: format!("filler/s-{number}"),
        at: SocketAddr::new(address(97, number + 1), 80),
        ..Service::new(Protocol::Tcp, 80, &[backend(2 * number + 1), backend(2 * number + 2)])
    };
    (0..count).map(filler).collect()
}

/// Loads the rules of kube-proxy in iptables mode for `services`, of either family, instead of those there were.
///
/// # Panics
/// When iptables refuses them.
#[track_caller]
pub fn serve(node: &Namespace, services: &[Service]) {
    for (family, command) in [(Family::V4, "iptables-restore"), (Family::V6, "ip6tables-restore")] {
        node.feed(command, &kube_proxy(family, services));
    }
}

/// The same in nftables mode.
///
/// # Panics
/// When nft refuses them.
#[track_caller]
pub fn serve_by_nftables(node: &Namespace, services: &[Service]) {
    for family in Family::BOTH {
        node.feed("nft -f -", &kube_proxy_nftables(family, services));
    }
}

/// Takes every rule and table away, whoever wrote it.
#[track_caller]
pub fn clear(node: &Namespace) {
    node.run("nft flush ruleset");
}
