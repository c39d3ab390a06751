//! A netlink socket of one namespace, and the few requests that netplug makes of it.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Error as RtError, Handle, RouteMessageBuilder};
use tokio::runtime::Runtime;

use super::Error;
use super::address::{Held, network_of};
use super::link::Link;

/// The socket, with the small runtime that drives it.
pub struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

/// Linux's errnos, as netlink answers have them.
const EEXIST: i32 = -17;
const ENODEV: i32 = -19;
const ESRCH: i32 = -3;
const ENOENT: i32 = -2;
const EOPNOTSUPP: i32 = -95;
const EADDRNOTAVAIL: i32 = -99;

pub(super) fn refused(
    verb: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(RtError) -> Error {
    let object = object.into();
    move |error| Error::Netlink { verb, object, source: Refusal::from(error) }
}

/// What the kernel answered to a request that it refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// An errno, and the kernel's own words where it had any.
    #[error("{errno}{text}")]
    Kernel {
        /// The errno.
        errno: io::Error,
        /// The extended acknowledgement, behind a colon; empty where there was none.
        text: String,
    },
    /// No answer that could be read.
    #[error("no proper answer by netlink")]
    Netlink(#[source] Box<RtError>),
}

impl From<RtError> for Refusal {
    fn from(error: RtError) -> Self {
        match error {
            RtError::NetlinkError(message) => Self::Kernel {
                text: extended_text(&message.header).map_or_else(String::new, |t| format!(": {t}")),
                errno: message.to_io(),
            },
            other => Self::Netlink(Box::new(other)),
        }
    }
}

/// The text of an extended acknowledgement (Documentation/userspace-api/netlink/intro.rst): the socket asks for capped
/// answers, so the attributes follow the 16 bytes of the request's header.
fn extended_text(answer: &[u8]) -> Option<String> {
    const HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let mut rest = answer.get(HEADER..)?;
    loop {
        let [a, b, c, d] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == NLMSGERR_ATTR_MSG {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn code(error: &RtError) -> Option<i32> {
    match error {
        RtError::NetlinkError(message) => message.code.map(std::num::NonZero::get),
        _ => None,
    }
}

/// Whether the kernel says that it is there already.
pub(super) fn exists(error: &RtError) -> bool {
    code(error) == Some(EEXIST)
}

/// Whether the kernel says that it is not there.
pub(super) fn is_gone(error: &RtError) -> bool {
    matches!(code(error), Some(ENODEV | ESRCH | ENOENT | EADDRNOTAVAIL))
}

/// Whether the kernel says that this thing cannot have such a thing.
pub(super) fn is_unsupported(error: &RtError) -> bool {
    code(error) == Some(EOPNOTSUPP)
}

impl Netlink {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        let fail =
            |source| Error::System { verb: "open", object: "a netlink socket".into(), source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(fail)?;
        let handle = {
            let _context = runtime.enter();
            // Strict: the kernel heeds the filters of dumps (since Linux 4.20).
            let (mut connection, handle, _) =
                rtnetlink::new_connection_with_strict_check().map_err(fail)?;
            let socket = connection.socket_mut().socket_mut();
            socket.set_ext_ack(true).and_then(|()| socket.set_cap_ack(true)).map_err(fail)?;
            runtime.spawn(connection);
            handle
        };
        Ok(Self { runtime, handle })
    }

    pub(super) fn run<T>(
        &self,
        request: impl Future<Output = Result<T, RtError>>,
    ) -> Result<T, RtError> {
        self.runtime.block_on(request)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Every link.
    pub fn links(&self) -> Result<Vec<Link>, Error> {
        let mut request = self.handle.link().get();
        let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        request.message_mut().attributes.push(mask);
        self.run(request.execute().map_ok(|message| Link::read(&message)).try_collect())
            .map_err(refused("list", "interfaces"))
    }

    /// The link of a name.
    pub fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match self.run(found.try_next()) {
            Ok(message) => Ok(message.as_ref().map(Link::read)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(refused("find", name)(error)),
        }
    }

    /// The link of an index.
    pub fn link_of_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let mut found = self.handle.link().get().match_index(index).execute();
        match self.run(found.try_next()) {
            Ok(message) => Ok(message.as_ref().map(Link::read)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(refused("find", format!("interface {index}"))(error)),
        }
    }

    /// Changes a link.
    pub fn set(&self, message: LinkMessage, name: &str) -> Result<(), Error> {
        self.run(self.handle.link().set(message).execute()).map_err(refused("set up", name))
    }

    /// Removes a link; content if it is gone.
    pub fn remove(&self, link: &Link) -> Result<(), Error> {
        match self.run(self.handle.link().del(link.index).execute()) {
            Err(error) if !is_gone(&error) => Err(refused("remove", &link.name)(error)),
            _ => Ok(()),
        }
    }

    /// The addresses of global scope that an interface has, in the kernel's order.
    pub fn addresses(&self, index: u32) -> Result<Vec<IpNetwork>, Error> {
        Ok(self.address_messages(index)?.iter().filter_map(network_of).collect())
    }

    /// The addresses of all interfaces, of whatever scope.
    pub fn all_addresses(&self) -> Result<Vec<Held>, Error> {
        let found: Vec<AddressMessage> = self
            .run(self.handle.address().get().execute().try_collect())
            .map_err(refused("list", "addresses"))?;
        Ok(found.iter().filter_map(Held::read).collect())
    }

    fn address_messages(&self, index: u32) -> Result<Vec<AddressMessage>, Error> {
        let mut found: Vec<AddressMessage> = self
            .run(self.handle.address().get().set_link_index_filter(index).execute().try_collect())
            .map_err(refused("list the addresses of", format!("interface {index}")))?;
        found.retain(|message| {
            message.header.index == index && message.header.scope == AddressScope::Universe
        });
        Ok(found)
    }

    /// Gives an interface an address, usable at once: without duplicate address detection. Returns whether it is new.
    pub fn add_address(&self, link: &Link, network: IpNetwork) -> Result<bool, Error> {
        let mut request = self.handle.address().add(link.index, network.ip(), network.prefix());
        if network.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        match self.run(request.execute()) {
            Ok(()) => Ok(true),
            Err(error) if exists(&error) => Ok(false),
            Err(error) => {
                Err(refused("give an address to", format!("{}: {network}", link.name))(error))
            }
        }
    }

    /// Takes an address from an interface; content if it has it not.
    pub fn remove_address(&self, link: &Link, network: IpNetwork) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.index = link.index;
        message.header.prefix_len = network.prefix();
        message.header.family =
            if network.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes.push(AddressAttribute::Local(network.ip()));
        match self.run(self.handle.address().del(message).execute()) {
            Err(error) if !is_gone(&error) => {
                Err(refused("take an address from", format!("{}: {network}", link.name))(error))
            }
            _ => Ok(()),
        }
    }

    /// Adds a route by an interface; `gateway` none: the destination is on the link. `false`: there is one to that
    /// destination already, which stays.
    pub fn add_route(
        &self,
        link: &Link,
        to: IpNetwork,
        gateway: Option<IpAddr>,
    ) -> Result<bool, Error> {
        let refused = refused("add", format!("the route to {to} by {}", link.name));
        let message = route(link.index, to, gateway).map_err(|source| Error::System {
            verb: "add",
            object: format!("the route to {to}"),
            source,
        })?;
        match self.run(self.handle.route().add(message).execute()) {
            Ok(()) => Ok(true),
            Err(error) if exists(&error) => Ok(false),
            Err(error) => Err(refused(error)),
        }
    }

    /// Where the routes by an interface lead.
    pub fn destinations(&self, index: u32) -> Result<Vec<IpNetwork>, Error> {
        let mut found = Vec::new();
        for route in self.routes()? {
            let mut to = match route.header.address_family {
                AddressFamily::Inet => IpAddr::from([0; 4]),
                _ => IpAddr::from([0; 16]),
            };
            let mut is_by = false;
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        to = (*address).into();
                    }
                    RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                        to = (*address).into();
                    }
                    RouteAttribute::Oif(oif) => is_by = *oif == index,
                    _ => {}
                }
            }
            if is_by {
                found.extend(IpNetwork::new(to, route.header.destination_prefix_length));
            }
        }
        Ok(found)
    }

    /// Whether the host would send a packet for `address` that came in by a link back out of it.
    pub fn is_routed_back(&self, link: &Link, address: IpAddr) -> Result<bool, Error> {
        let to = match address {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        };
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        (header.address_family, header.destination_prefix_length) = match address {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        // From itself: as a neighbour on the same link is to be, where it is.
        header.source_prefix_length = header.destination_prefix_length;
        message.attributes = vec![
            RouteAttribute::Destination(to.clone()),
            RouteAttribute::Source(to),
            RouteAttribute::Iif(link.index),
        ];
        let mut found = self.handle.route().get(message).execute();
        match self.run(found.try_next()) {
            Ok(route) => Ok(route.is_some_and(|route| {
                route.header.kind == RouteType::Unicast
                    && route.attributes.contains(&RouteAttribute::Oif(link.index))
            })),
            // No route, or one that leads nowhere.
            Err(RtError::NetlinkError(_)) => Ok(false),
            Err(error) => Err(refused("ask for the route to", address.to_string())(error)),
        }
    }

    /// The address that the host would send from, by an interface, to `address`: the route's own (`src`), or that of which the
    /// kernel finds that it suits (IPv4: in the next hop's subnet; IPv6: RFC 6724). `None`: no route leads there.
    pub fn source_towards(&self, index: u32, address: IpAddr) -> Result<Option<IpAddr>, Error> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        let to;
        (header.address_family, header.destination_prefix_length, to) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
        };
        message.attributes = vec![RouteAttribute::Destination(to), RouteAttribute::Oif(index)];
        let mut found = self.handle.route().get(message).execute();
        let route = match self.run(found.try_next()) {
            Err(RtError::NetlinkError(_)) => None,
            Err(error) => return Err(refused("ask for the route to", address.to_string())(error)),
            Ok(route) => route,
        };
        let source = route.into_iter().flat_map(|route| route.attributes).find_map(|attribute| {
            match attribute {
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(address.into()),
                RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some(address.into()),
                _ => None,
            }
        });
        Ok(source)
    }

    /// Every route of both families, in any table.
    pub fn routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let mut routes: Vec<RouteMessage> = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            // All else in the header would be a filter.
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let found: Vec<_> = self
                .run(self.handle.route().get(message).execute().try_collect())
                .map_err(refused("list", "routes"))?;
            routes.extend(found);
        }
        Ok(routes)
    }
}

fn route(index: u32, to: IpNetwork, gateway: Option<IpAddr>) -> Result<RouteMessage, io::Error> {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to.network(), to.prefix())
        .map_err(io::Error::other)?
        .output_interface(index);
    builder = match gateway {
        Some(gateway) => builder.gateway(gateway).map_err(io::Error::other)?,
        None => builder.scope(rtnetlink::packet_route::route::RouteScope::Link),
    };
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let mut answer = vec![0; 16];
        // NLMSGERR_ATTR_OFFS, then NLMSGERR_ATTR_MSG.
        answer.extend([8, 0, 2, 0, 0, 0, 0, 0]);
        answer.extend([9, 0, 1, 0]);
        answer.extend(b"busy\0");
        assert_eq!(extended_text(&answer).as_deref(), Some("busy"));
        assert_eq!(extended_text(&answer[..16]), None);
        assert_eq!(extended_text(&[0; 24]), None);
    }
}
