//! The interfaces by which packets leave the node.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric,
};

use super::address::{AddressState, Held};
use super::link::Link;
use super::{Error, Netlink};

/// An uplink.
pub struct Uplink {
    /// The interface.
    pub link: Link,
    /// What pods leave as by it; of a family one at the most.
    pub addresses: Vec<IpAddr>,
    /// The smallest MTU that a route by it has of its own, in L3 bytes.
    pub route_mtu: Option<u32>,
}

/// What uplinks are judged by.
pub struct Surroundings {
    routes: Vec<RouteMessage>,
    addresses: Vec<Held>,
    /// Interfaces without a wire, which have addresses for the whole node.
    unwired: BTreeSet<u32>,
    pods: Pods,
}

/// What of the node is there for pods: an address of it is nobody's whom the outside would answer.
#[derive(Debug, Default)]
pub struct Pods {
    /// The networks that they are in.
    pub networks: Vec<IpNetwork>,
    /// The interfaces by which the host reaches them: host ends, and bridges. Also those of services.
    pub interfaces: BTreeSet<u32>,
}

impl Surroundings {
    /// The node as it is now, with these pods.
    pub fn read(netlink: &Netlink, pods: Pods) -> Result<Self, Error> {
        let mut addresses = netlink.all_addresses()?;
        // It is another host's.
        addresses.retain(|held| held.state != AddressState::Duplicate);
        let is_without_wire = |link: &Link| link.is_loopback || link.kind == Some(InfoKind::Dummy);
        let links = netlink.links()?.into_iter().filter(is_without_wire);
        let unwired = links.map(|link| link.index).collect();
        Ok(Self { routes: netlink.routes()?, addresses, unwired, pods })
    }

    /// A link as an uplink, by which pods left as `before`.
    pub fn uplink(
        &self,
        netlink: &Netlink,
        link: Link,
        before: &[IpAddr],
    ) -> Result<Uplink, Error> {
        let mut addresses = Vec::new();
        for somewhere in SOMEWHERE {
            let before = before.iter().find(|address| address.is_ipv4() == somewhere.is_ipv4());
            addresses.extend(self.leaves_as(netlink, link.index, somewhere, before.copied())?);
        }
        let route_mtu = smallest_mtu(&self.routes, link.index);
        Ok(Uplink { link, addresses, route_mtu })
    }

    /// What pods leave as by an uplink, of the family of `somewhere`:
    /// 1. the source that its own default route names (`src`), which is somebody's choice
    /// 2. what they left as `before`, as long as the uplink has it: a second one is no reason to break connections, and the
    ///    kernel lists the newest IPv6 address first. Where the default route is away, which may have named it, as long as lo
    ///    or the like has it; where the uplink has none that would do, as long as the node has it
    /// 3. what the kernel would send from, where it is the uplink's own
    /// 4. the uplink's own, in so far as it is or will be answered for. The kernel rather sends from whatever other interface
    ///    has a preferred one (IPv6: RFC 6724, rule 3)
    /// 5. that of another interface which the kernel would send from, such as lo; never one that is there for pods
    /// 6. the uplink's own that is deprecated or link-local
    fn leaves_as(
        &self,
        netlink: &Netlink,
        index: u32,
        somewhere: IpAddr,
        before: Option<IpAddr>,
    ) -> Result<Option<IpAddr>, Error> {
        let is_v4 = somewhere.is_ipv4();
        let default = self.default_route(index, is_v4);
        let named = default.and_then(source_of).filter(|source| self.has(*source));
        if named.is_some() {
            return Ok(named);
        }
        let own = self.own(index, is_v4);
        let is_own = |address: &IpAddr| own.iter().any(|held| held.network.ip() == *address);
        let is_hosts = |address: &IpAddr| self.has(*address) && !self.is_for_pods(*address);
        let choice = netlink.source_towards(index, somewhere)?.filter(is_seen_outside);
        let address_of = |held: &Held| held.network.ip();
        let good = own.first().filter(|held| is_good(held)).map(address_of);
        let best = choice.filter(is_own).or(good);
        let may_be_named =
            |address: &IpAddr| default.is_none() && self.is_on(*address, &self.unwired);
        let stays = |address: &IpAddr| best.is_none() || may_be_named(address);
        let kept = before.filter(|address| is_own(address) || is_hosts(address) && stays(address));
        Ok(kept.or(best).or(choice.filter(is_hosts)).or(own.first().map(address_of)))
    }

    /// An uplink's own addresses of a family, the best first.
    fn own(&self, index: u32, is_v4: bool) -> Vec<Held> {
        let is_own =
            |held: &&Held| held.index == index && held.is_global && held.network.is_ipv4() == is_v4;
        let mut own: Vec<_> = self.addresses.iter().filter(is_own).copied().collect();
        own.sort_by_key(|held| (!is_good(held), held.state));
        own
    }

    /// The default route by an interface that the kernel prefers.
    fn default_route(&self, index: u32, is_v4: bool) -> Option<&RouteMessage> {
        let is_by = |route: &&RouteMessage| {
            is_default(route)
                && (route.header.address_family == AddressFamily::Inet) == is_v4
                && devices_of(route).contains(&index)
        };
        self.routes.iter().filter(is_by).min_by_key(|route| metric_of(route))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|held| held.network.ip() == address)
    }

    fn is_for_pods(&self, address: IpAddr) -> bool {
        let Pods { networks, interfaces } = &self.pods;
        networks.iter().any(|network| network.contains(address)) || self.is_on(address, interfaces)
    }

    fn is_on(&self, address: IpAddr, interfaces: &BTreeSet<u32>) -> bool {
        let is_there =
            |held: &Held| held.network.ip() == address && interfaces.contains(&held.index);
        self.addresses.iter().any(is_there)
    }
}

/// Where the default route leads: to a root server of the DNS (a.root-servers.net). Nothing is sent there. Documentation's
/// networks would not do: lists of those that nobody has lead them nowhere.
const SOMEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// Whether packets from an address are, or will be, answered.
fn is_good(held: &Held) -> bool {
    held.state <= AddressState::Tentative && is_seen_outside(&held.network.ip())
}

fn is_seen_outside(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_link_local && !address.is_loopback() && !address.is_unspecified()
}

/// The source that a route names.
fn source_of(route: &RouteMessage) -> Option<IpAddr> {
    let source = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    });
    source.filter(is_seen_outside)
}

/// A route's metric; the least counts, and IPv4 leaves out that of none.
fn metric_of(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or(0)
}

/// The links that are uplinks: those named, or the devices of default routes. What has no Ethernet header is left to the
/// host, and named in the second list.
pub fn find(
    netlink: &Netlink,
    named: Option<&[String]>,
) -> Result<(Vec<Link>, Vec<String>), Error> {
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
            for index in default_devices(&netlink.routes()?) {
                links.extend(netlink.link_of_index(index)?);
            }
        }
    }
    links.sort_by_key(|link| link.index);
    links.dedup();
    let (uplinks, left_out): (Vec<_>, _) = links.into_iter().partition(|link| link.is_ethernet);
    Ok((uplinks, left_out.into_iter().map(|link: Link| link.name).collect()))
}

fn default_devices(routes: &[RouteMessage]) -> Vec<u32> {
    let defaults = routes.iter().filter(|route| is_default(route));
    let mut devices: Vec<_> = defaults.flat_map(devices_of).collect();
    // Both families mostly leave by the same one.
    devices.sort_unstable();
    devices.dedup();
    devices
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.table == RouteHeader::RT_TABLE_MAIN
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
