//! rtnetlink: what of its many notices may have the host decide otherwise.
//!
//! # Changes
//! - every route, nexthop and policy rule that comes or goes
//! - addresses, but not that a router renews one
//! - an interface that goes down, or comes back: the kernel tells nothing of the IPv4 routes that go with it
//! # No changes
//! - routes of multicast and to link-local addresses, of which each interface has some: nothing is forwarded by them
//! - an interface that is new, such as a pod's; what leads there is told for itself

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::listener::{Listener, Told};
use crate::node::address::Held;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];
/// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP` (include/uapi/linux/rtnetlink.h), which are not parsed.
const NEXTHOPS: [u16; 2] = [104, 105];

pub fn open() -> io::Result<Listener> {
    Listener::open(
        NETLINK_ROUTE,
        GROUPS.iter().fold(0, |bits, group| bits | 1 << (*group as u32 - 1)),
    )
}

/// What was told before, as far as it tells chatter from change.
#[derive(Debug, Default)]
pub struct Known {
    addresses: HashMap<(u32, IpAddr), Held>,
    down: HashMap<u32, Down>,
}

/// Why an interface carries no packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    /// It never has.
    New,
    /// It has, and may again.
    Lost,
}

impl Known {
    /// Whether that is a change.
    pub fn changes(&mut self, told: Told<'_>) -> bool {
        let message = match told {
            Told::Message(kind, _) if NEXTHOPS.contains(&kind) => return true,
            Told::Message(_, message) => NetlinkMessage::deserialize(message),
            Told::TooMuch => {
                *self = Self::default();
                return true;
            }
        };
        // What cannot be read may be one.
        let Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) = message
        else {
            return true;
        };
        match message {
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                leads_on(&route)
            }
            RouteNetlinkMessage::NewAddress(address) => {
                self.address(Held::read(&address), |addresses, held| {
                    addresses.insert((held.index, held.network.ip()), held) != Some(held)
                })
            }
            RouteNetlinkMessage::DelAddress(address) => {
                self.address(Held::read(&address), |addresses, held| {
                    addresses.remove(&(held.index, held.network.ip()));
                    true
                })
            }
            RouteNetlinkMessage::NewLink(link) => self.link(&link),
            RouteNetlinkMessage::DelLink(link) => self.down.remove(&link.header.index).is_none(),
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => true,
            _ => false,
        }
    }

    fn address(
        &mut self,
        held: Option<Held>,
        changes: impl FnOnce(&mut HashMap<(u32, IpAddr), Held>, Held) -> bool,
    ) -> bool {
        match held {
            Some(held) if is_local_to_link(held.network.ip()) => false,
            Some(held) => changes(&mut self.addresses, held),
            None => true,
        }
    }

    /// Who is not known to be down is up.
    fn link(&mut self, link: &LinkMessage) -> bool {
        let header = &link.header;
        if header.flags.contains(LinkFlags::Up | LinkFlags::Running) {
            return self.down.remove(&header.index) == Some(Down::Lost);
        }
        if self.down.contains_key(&header.index) {
            return false;
        }
        // The kernel tells of a new one as if all of it had changed.
        let is_new = header.change_mask.bits() == u32::MAX;
        self.down.insert(header.index, if is_new { Down::New } else { Down::Lost });
        !is_new
    }
}

/// Whether packets of others may go by a route.
fn leads_on(route: &RouteMessage) -> bool {
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    });
    !route.header.flags.contains(RouteFlags::Cloned)
        && route.header.kind != RouteType::Multicast
        && !destination.is_some_and(|to| to.is_multicast() || is_local_to_link(to))
}

/// IPv4's are left in: some clouds have services there.
fn is_local_to_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
