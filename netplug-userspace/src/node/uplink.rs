//! The interfaces by which packets leave the node.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteMetric};

use super::link::Link;
use super::{Error, Netlink};

/// An uplink.
pub struct Uplink {
    /// The interface.
    pub link: Link,
    /// Its addresses of global scope, in the kernel's order.
    pub addresses: Vec<IpAddr>,
    /// The smallest MTU that a route by it has of its own, in L3 bytes.
    pub route_mtu: Option<u32>,
}

impl Uplink {
    /// A link as an uplink, where `routes` are the node's.
    pub fn of(netlink: &Netlink, link: Link, routes: &[RouteMessage]) -> Result<Self, Error> {
        // Those that nobody answers for yet, and those that are on their way out, come last.
        let found = netlink.addresses_by_use(link.index)?;
        let route_mtu = smallest_mtu(routes, link.index);
        Ok(Self { link, addresses: found.iter().map(IpNetwork::ip).collect(), route_mtu })
    }
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
