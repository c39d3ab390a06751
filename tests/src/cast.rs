//! The cast: who plays in tests, by role, with an address of each family and a MAC that spells the role.
//! No test writes an address of its own unless the address is what it is about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 or IPv6: what most tests are run once for each of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which people name them.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One of the cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// Its role.
    pub name: &'static str,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its MAC; locally administered, the rest is ASCII.
    pub mac: [u8; 6],
}

impl Actor {
    /// Its address of `family`.
    #[must_use]
    pub const fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// Its MAC as people write it.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|octet| format!("{octet:02x}")).join(":")
    }
}

/// A pod that serves.
pub const WEB: Actor = Actor {
    name: "web",
    v4: Ipv4Addr::new(10, 244, 0, 10),
    v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0x10),
    mac: *b"\x02web_1",
};

/// A pod that asks.
pub const CLIENT: Actor = Actor {
    name: "client",
    v4: Ipv4Addr::new(10, 244, 0, 11),
    v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0x11),
    mac: *b"\x02clnt1",
};

/// The bridge of the node, which is the pods' gateway.
pub const GATEWAY: Actor = Actor {
    name: "gateway",
    v4: Ipv4Addr::new(10, 244, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 1),
    mac: *b"\x02gate1",
};

/// The node, as the world sees it.
pub const NODE_1: Actor = Actor {
    name: "node-1",
    v4: Ipv4Addr::new(192, 0, 2, 1),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
    mac: *b"\x02node1",
};

/// A host outside of the cluster; the node's default route leads to it.
pub const OUTSIDE: Actor = Actor {
    name: "outside",
    v4: Ipv4Addr::new(192, 0, 2, 2),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2),
    mac: *b"\x02outsd",
};

/// Another address of the outside host, in a non-masquerade CIDR.
pub const INTRANET: Actor = Actor {
    name: "intranet",
    v4: Ipv4Addr::new(10, 99, 0, 2),
    v6: Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2),
    mac: OUTSIDE.mac,
};

/// The cluster address of a service.
pub const SERVICE: Actor = Actor {
    name: "service",
    v4: Ipv4Addr::new(10, 96, 0, 80),
    v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x80),
    mac: *b"\x02servc",
};

/// An address of elsewhere that is led to the node, where a service is called by it (`externalIPs`).
pub const EXTERNAL: Actor = Actor {
    name: "external",
    v4: Ipv4Addr::new(198, 51, 100, 80),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x80),
    mac: NODE_1.mac,
};

/// The same, of a load balancer's.
pub const BALANCER: Actor = Actor {
    name: "balancer",
    v4: Ipv4Addr::new(198, 51, 100, 81),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 0x81),
    mac: NODE_1.mac,
};

/// The cluster's CIDR, which `kube-proxy` calls `--cluster-cidr`: pods of all nodes.
#[must_use]
pub const fn cluster_cidr(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.0.0/16",
        Family::V6 => "fd00:244::/48",
    }
}

/// This node's share of the cluster's CIDR.
#[must_use]
pub const fn pod_cidr(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.0.0/24",
        Family::V6 => "fd00:244::/64",
    }
}

/// Where pods of a routed (ptp) network on this node live: outside the bridge's subnet.
#[must_use]
pub const fn ptp_cidr(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.1.0/24",
        Family::V6 => "fd00:244:0:1::/64",
    }
}

/// What netplug is told not to masquerade. [`INTRANET`] and all pods are in it, [`OUTSIDE`] is not.
pub const NON_MASQUERADE: [&str; 2] = ["10.0.0.0/8", "fd00::/8"];
