//! A netlink socket of one namespace, and the few requests that netplug makes of it.

use std::io;
use std::net::IpAddr;

use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressScope,
};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Error as RtError, Handle, RouteMessageBuilder};
use tokio::runtime::Runtime;

use super::Error;
use super::link::Link;

/// The socket, with the small runtime that drives it.
pub struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

/// Linux's EEXIST and ENODEV, as netlink answers have them.
const EEXIST: i32 = -17;
const ENODEV: i32 = -19;
const ESRCH: i32 = -3;
const ENOENT: i32 = -2;

pub(super) fn refused(
    verb: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(RtError) -> Error {
    let object = object.into();
    move |source| Error::Netlink { verb, object, source: Box::new(source) }
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
    matches!(code(error), Some(ENODEV | ESRCH | ENOENT))
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
            let (connection, handle, _) = rtnetlink::new_connection().map_err(fail)?;
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
        self.run(
            self.handle.link().get().execute().map_ok(|message| Link::read(&message)).try_collect(),
        )
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
        let found: Vec<_> = self
            .run(self.handle.address().get().set_link_index_filter(index).execute().try_collect())
            .map_err(refused("list the addresses of", format!("interface {index}")))?;
        Ok(found
            .into_iter()
            .filter(|message| {
                message.header.index == index && message.header.scope == AddressScope::Universe
            })
            .filter_map(|message| {
                let find = |local: bool| {
                    message.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Local(address) if local => Some(*address),
                        AddressAttribute::Address(address) if !local => Some(*address),
                        _ => None,
                    })
                };
                let address = find(true).or_else(|| find(false))?;
                IpNetwork::new(address, message.header.prefix_len).ok()
            })
            .collect())
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

    /// Adds a route by an interface; `gateway` none: the destination is on the link.
    pub fn add_route(
        &self,
        link: &Link,
        to: IpNetwork,
        gateway: Option<IpAddr>,
    ) -> Result<(), Error> {
        let refused = refused("add", format!("the route to {to} by {}", link.name));
        let message = route(link.index, to, gateway).map_err(|source| Error::System {
            verb: "add",
            object: format!("the route to {to}"),
            source,
        })?;
        match self.run(self.handle.route().add(message).execute()) {
            Err(error) if !exists(&error) => Err(refused(error)),
            _ => Ok(()),
        }
    }

    /// Every route of both families in the main table.
    pub fn routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let mut routes: Vec<RouteMessage> = Vec::new();
        for message in [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ] {
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
