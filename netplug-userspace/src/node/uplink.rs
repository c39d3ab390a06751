//! The interfaces by which packets leave the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteMetric};

use super::link::Link;
use super::{Error, Netlink};

/// An uplink.
pub struct Uplink {
    /// The interface.
    pub link: Link,
    /// Those that the host sends from by it come first, be they its own or not; then its own of global scope.
    pub addresses: Vec<IpAddr>,
    /// The smallest MTU that a route by it has of its own, in L3 bytes.
    pub route_mtu: Option<u32>,
}

impl Uplink {
    /// A link as an uplink, where `routes` are the node's.
    pub fn of(netlink: &Netlink, link: Link, routes: &[RouteMessage]) -> Result<Self, Error> {
        // Those that nobody answers for yet, and those that are on their way out, come last.
        let found = netlink.addresses_by_use(link.index)?;
        let mut addresses = Vec::new();
        for somewhere in SOMEWHERE {
            let source = netlink.source_towards(link.index, somewhere)?;
            addresses.extend(source.filter(is_seen_outside));
        }
        let own = found.iter().map(IpNetwork::ip);
        let others: Vec<_> = own.filter(|address| !addresses.contains(address)).collect();
        addresses.extend(others);
        let route_mtu = smallest_mtu(routes, link.index);
        Ok(Self { link, addresses, route_mtu })
    }
}

/// Where the default route leads: to a root server of the DNS (a.root-servers.net). Nothing is sent there. Documentation's
/// networks would not do: lists of those that nobody has lead them nowhere.
const SOMEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

fn is_seen_outside(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_link_local && !address.is_loopback() && !address.is_unspecified()
}

/// The uplinks: those named, or the devices of default routes. What has no Ethernet header is left to the host, and
/// named in the second list.
pub fn find(
    netlink: &Netlink,
    named: Option<&[String]>,
) -> Result<(Vec<Uplink>, Vec<String>), Error> {
    let routes = netlink.routes()?;
    let mut links = Vec::new();
    match named {
        Some(names) => {
            for name in names {
                let found = netlink.link(name)?;
                links.push(found.ok_or_else(|| Error::NoInterface {
                    name: name.clone(),
                    place: String::new(),
                })?);
            }
        }
        None => {
            for index in default_devices(&routes) {
                links.extend(netlink.link_of_index(index)?);
            }
        }
    }
    links.sort_by_key(|link| link.index);
    links.dedup();
    let (mut uplinks, mut left_out) = (Vec::new(), Vec::new());
    for link in links {
        if !link.is_ethernet {
            left_out.push(link.name);
            continue;
        }
        uplinks.push(Uplink::of(netlink, link, &routes)?);
    }
    Ok((uplinks, left_out))
}

fn default_devices(routes: &[RouteMessage]) -> Vec<u32> {
    let is_default = |route: &&RouteMessage| {
        route.header.destination_prefix_length == 0
            && route.header.table == RouteHeader::RT_TABLE_MAIN
    };
    let mut devices: Vec<_> = routes.iter().filter(is_default).flat_map(devices_of).collect();
    // Both families mostly leave by the same one.
    devices.sort_unstable();
    devices.dedup();
    devices
}

fn devices_of(route: &RouteMessage) -> Vec<u32> {
    let mut devices = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => devices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                devices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    devices
}

fn smallest_mtu(routes: &[RouteMessage], index: u32) -> Option<u32> {
    let mtu = |route: &RouteMessage| {
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
                RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                _ => None,
            }),
            _ => None,
        })
    };
    let of_uplink = routes.iter().filter(|route| devices_of(route).contains(&index));
    of_uplink.filter_map(mtu).min()
}
