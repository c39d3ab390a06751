//! The interfaces by which packets leave the node.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader};

use super::link::Link;
use super::{Error, Netlink};

/// An uplink.
pub struct Uplink {
    /// The interface.
    pub link: Link,
    /// Its addresses of global scope, in the kernel's order.
    pub addresses: Vec<IpAddr>,
}

/// The uplinks: those named, or the devices of default routes. What has no Ethernet header is left to the host, and
/// named in the second list.
pub fn find(
    netlink: &Netlink,
    named: Option<&[String]>,
) -> Result<(Vec<Uplink>, Vec<String>), Error> {
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
            for index in default_devices(netlink)? {
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
        let addresses = addresses(netlink, link.index)?;
        uplinks.push(Uplink { link, addresses });
    }
    Ok((uplinks, left_out))
}

/// An uplink's addresses of global scope, in the kernel's order; those that nobody answers for yet, and those that are on
/// their way out, come last.
pub fn addresses(netlink: &Netlink, index: u32) -> Result<Vec<IpAddr>, Error> {
    netlink.addresses_by_use(index).map(|found| found.iter().map(IpNetwork::ip).collect())
}

fn default_devices(netlink: &Netlink) -> Result<Vec<u32>, Error> {
    let mut devices = Vec::new();
    for route in netlink.routes()? {
        if route.header.destination_prefix_length != 0
            || route.header.table != RouteHeader::RT_TABLE_MAIN
        {
            continue;
        }
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => devices.push(*index),
                RouteAttribute::MultiPath(hops) => {
                    devices.extend(hops.iter().map(|hop| hop.interface_index))
                }
                _ => {}
            }
        }
    }
    // Both families mostly leave by the same one.
    devices.sort_unstable();
    devices.dedup();
    Ok(devices)
}
