//! The pod's end of the veth: addresses that are usable at once, routes, and the gateway's MAC.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::config::{Config, Ipam};
use crate::ipam::Lease;
use crate::node::{self, Mac, Netlink, neighbour, sysctl};

/// The routes of the configuration, and a default route of each family that has none: with `isDefaultGateway`, or where no
/// routes are named and `isDefaultGateway` does not say `false`.
pub(super) fn routes(
    config: &Config,
    ipam: &Ipam,
    leases: &[Lease],
) -> Vec<(IpNetwork, Option<IpAddr>)> {
    let mut routes: Vec<_> = ipam.routes.iter().map(|route| (route.dst, route.gw)).collect();
    for lease in leases {
        let default = match lease.address {
            IpNetwork::V4(_) => "0.0.0.0/0",
            IpNetwork::V6(_) => "::/0",
        };
        let Ok(default) = default.parse::<IpNetwork>() else { continue };
        let is_named = routes.iter().any(|(to, _)| *to == default);
        if config.is_default_gateway.unwrap_or(ipam.routes.is_empty()) && !is_named {
            routes.push((default, Some(lease.gateway)));
        }
    }
    routes
}

/// In the pod's namespace: addresses that are usable at once, the interface up, routes, and the gateway's MAC. Returns the
/// routes that were made: those that another interface has already are that one's.
pub(super) fn set_up(
    netlink: &Netlink,
    ifname: &str,
    leases: &[Lease],
    routes: &[(IpNetwork, Option<IpAddr>)],
    gateway_mac: Option<Mac>,
) -> Result<Vec<(IpNetwork, Option<IpAddr>)>, node::Error> {
    let link = netlink.link(ifname)?.ok_or_else(|| node::Error::NoInterface {
        name: ifname.into(),
        place: " in the pod".into(),
    })?;
    if leases.iter().any(|lease| lease.address.is_ipv6()) {
        sysctl::of_device(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0")?;
        sysctl::of_device(&format!("net/ipv6/conf/{ifname}/accept_dad"), "0")?;
    }
    for lease in leases {
        netlink.add_address(&link, lease.address)?;
    }
    let up = rtnetlink::LinkUnspec::new_with_index(link.index).up().build();
    netlink.set(up, ifname)?;
    if let Some(mac) = gateway_mac {
        for lease in leases {
            neighbour::add(netlink, &link, lease.gateway, mac)?;
        }
    }
    let mut made = Vec::new();
    for (to, gateway) in routes {
        let of_family = |lease: &&Lease| lease.address.is_ipv4() == to.is_ipv4();
        let by = gateway.or_else(|| leases.iter().find(of_family).map(|lease| lease.gateway));
        if netlink.add_route(&link, *to, by)? {
            made.push((*to, *gateway));
        }
    }
    Ok(made)
}
