//! HostPorts: HOSTPORTS, LOCALS, and the socket hooks, which are attached when the first HostPort is opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::Pod;
use aya::maps::MapError;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::config::{EPHEMERAL_HOST_PORTS, HOST_PORTS};
use netplug_common::maps::host_port::{HostPort as Key, Target};
use netplug_common::tuple::Port;

use super::attach::interface_name;
use super::maps::{Family, entries, entries_left, left, remove};
use super::pin::Lock;
use super::{Datapath, Error, Owner, sockets};
use crate::warning::warn;

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct HostPort {
    /// IANA protocol number.
    pub protocol: u8,
    /// The node's address; unspecified: any of that family.
    pub address: IpAddr,
    /// The node's port.
    pub port: u16,
    /// The pod, of the same family.
    pub pod: IpAddr,
    /// Its port.
    pub pod_port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { protocol, address, port, pod, pod_port } = *self;
        let name = crate::protocol::name(protocol);
        let (at, to) =
            (std::net::SocketAddr::new(address, port), std::net::SocketAddr::new(pod, pod_port));
        write!(f, "{name} {at} to {to}")
    }
}

impl HostPort {
    /// Whether a caller could mean either.
    fn clashes_with(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && self.address.is_ipv4() == other.address.is_ipv4()
            && (self.address == other.address
                || self.address.is_unspecified()
                || other.address.is_unspecified())
    }
}

/// What differs between the families in keys and values.
trait Form: Family {
    /// The addresses of a HostPort; `None` where they are of the other family.
    fn addresses(port: &HostPort) -> Option<(Self::Address, Self::Address)>;
    /// An address as people have it.
    fn ip(address: Self::Address) -> IpAddr;
}

impl Form for V4 {
    fn addresses(port: &HostPort) -> Option<(Self::Address, Self::Address)> {
        match (port.address, port.pod) {
            (IpAddr::V4(address), IpAddr::V4(pod)) => Some((address.into(), pod.into())),
            _ => None,
        }
    }

    fn ip(address: Self::Address) -> IpAddr {
        Ipv4Addr::from(address).into()
    }
}

impl Form for V6 {
    fn addresses(port: &HostPort) -> Option<(Self::Address, Self::Address)> {
        match (port.address, port.pod) {
            (IpAddr::V6(address), IpAddr::V6(pod)) => Some((address.into(), pod.into())),
            _ => None,
        }
    }

    fn ip(address: Self::Address) -> IpAddr {
        Ipv6Addr::from(address).into()
    }
}

impl Datapath {
    /// Has `ports` lead to a pod of `owner`, or none of them; `locals` are the node's addresses. Fails where another pod has
    /// one of them.
    pub fn open_host_ports(
        &self,
        owner: Owner,
        ports: &[HostPort],
        locals: &[IpAddr],
    ) -> Result<(), Error> {
        let lock = Lock::of_settings()?;
        let known = self.host_ports()?;
        for port in ports {
            let clashing =
                known.iter().filter(|(holder, open)| *holder != owner && open.clashes_with(port));
            for (holder, open) in clashing {
                if self.is_there(*holder)? {
                    return Err(Error::HostPortTaken { wanted: *port, open: *open });
                }
                // Gone without a DEL.
                self.remove_host_ports(&lock, *holder)?;
            }
        }
        self.write_locals::<V4>(locals)?;
        self.write_locals::<V6>(locals)?;
        sockets::attach()?;
        let cookie = sockets::namespace_cookie()?;
        let result = ports.iter().try_for_each(|port| {
            self.write_host_port::<V4>(owner, port)?;
            self.write_host_port::<V6>(owner, port)
        });
        let result = result.and_then(|()| {
            self.change(&lock, |config| {
                config.netns_cookie = cookie;
                config.flags |= HOST_PORTS;
                if ports.iter().any(|port| config.local_ports.contains(port.port)) {
                    config.flags |= EPHEMERAL_HOST_PORTS;
                }
                // What a flow was learned as while the port was the host's.
                config.epoch = config.epoch.wrapping_add(1);
            })
        });
        if result.is_err() {
            // The first error is the one that tells; what cannot be undone now, DEL finds.
            let _ = self.remove_host_ports(&lock, owner);
        }
        result
    }

    /// Whether an endpoint of `owner` is registered whose interface is there.
    fn is_there(&self, owner: Owner) -> Result<bool, Error> {
        let ports = entries(&self.maps.ports()?, "PORTS")?;
        let mut mine = ports.into_iter().filter(|(_, port)| port.owner == owner.0);
        Ok(mine.any(|(ifindex, _)| interface_name(ifindex).is_ok()))
    }

    /// Whether the programs look for HostPorts.
    pub fn serves_host_ports(&self) -> Result<bool, Error> {
        Ok(self.config()?.flags & HOST_PORTS != 0 && sockets::are_attached())
    }

    /// Has the programs look for HostPorts again, if there are any: CONFIG may have been made anew.
    pub(super) fn serve_host_ports(&self) -> Result<(), Error> {
        let lock = Lock::of_settings()?;
        if self.host_ports()?.is_empty() {
            return Ok(());
        }
        sockets::attach()?;
        let cookie = sockets::namespace_cookie()?;
        self.change(&lock, |config| {
            config.netns_cookie = cookie;
            // Whether some are among the ephemeral ones is not looked at: at worst it costs a look for nothing.
            config.flags |= HOST_PORTS | EPHEMERAL_HOST_PORTS;
        })
    }

    /// Makes `locals` the node's addresses, as the node's own processes may call HostPorts by.
    pub fn write_local_addresses(&self, locals: &[IpAddr]) -> Result<(), Error> {
        let _lock = Lock::of_settings()?;
        self.write_locals::<V4>(locals)?;
        self.write_locals::<V6>(locals)
    }

    fn write_locals<V: Form>(&self, locals: &[IpAddr]) -> Result<(), Error>
    where
        V::Address: Pod,
    {
        let mut map = self.maps.locals::<V>()?;
        let known = entries(&map, V::LOCALS)?;
        for (address, _) in &known {
            if !locals.contains(&V::ip(*address)) {
                remove(&mut map, address, V::LOCALS)?;
            }
        }
        self.add_locals::<V>(locals.iter().filter_map(|local| {
            let as_host =
                HostPort { protocol: 0, address: *local, port: 0, pod: *local, pod_port: 0 };
            V::addresses(&as_host).map(|(address, _)| address)
        }))
    }

    /// Adds to the node's addresses.
    pub(super) fn add_locals<V: Family>(
        &self,
        addresses: impl Iterator<Item = V::Address>,
    ) -> Result<(), Error>
    where
        V::Address: Pod,
    {
        let mut map = self.maps.locals::<V>()?;
        for address in addresses {
            match map.insert(address, 0, 0) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::ArgumentListTooLong =>
                {
                    warn(format_args!(
                        "the node has more addresses than {} has room for; its own processes do not reach HostPorts by the \
                         others",
                        V::LOCALS
                    ));
                    break;
                }
                Err(source) => return Err(Error::Map { verb: "write", map: V::LOCALS, source }),
            }
        }
        Ok(())
    }

    fn write_host_port<V: Form>(&self, owner: Owner, port: &HostPort) -> Result<(), Error> {
        let Some((address, pod)) = V::addresses(port) else { return Ok(()) };
        let key =
            Key::<V> { address, port: Port::new(port.port), protocol: port.protocol, _pad: [0; 5] };
        let target = Target::<V> {
            owner: owner.0.to_ne_bytes(),
            address: pod,
            port: Port::new(port.pod_port),
            _pad: [0; 6],
        };
        self.maps.host_ports::<V>()?.insert(key, target, 0).map_err(|source| Error::Map {
            verb: "write",
            map: V::HOST_PORTS,
            source,
        })
    }

    /// Gives the HostPorts of `owner` back to the host.
    pub(super) fn close_host_ports(&self, owner: Owner) -> Result<(), Error> {
        self.remove_host_ports(&Lock::of_settings()?, owner)
    }

    fn remove_host_ports(&self, lock: &Lock, owner: Owner) -> Result<(), Error> {
        self.remove_of::<V4>(owner)?;
        self.remove_of::<V6>(owner)?;
        let is_told = left(self.config())?.is_some_and(|config| config.flags & HOST_PORTS != 0);
        if is_told && self.host_ports()?.is_empty() {
            left(self.change(lock, |config| config.flags &= !(HOST_PORTS | EPHEMERAL_HOST_PORTS)))?;
        }
        Ok(())
    }

    fn remove_of<V: Form>(&self, owner: Owner) -> Result<(), Error> {
        let Some(mut map) = left(self.maps.host_ports::<V>())? else { return Ok(()) };
        for (key, target) in entries(&map, V::HOST_PORTS)? {
            if target.owner == owner.0.to_ne_bytes() {
                remove(&mut map, &key, V::HOST_PORTS)?;
            }
        }
        Ok(())
    }

    /// Every HostPort, with whose it is.
    pub fn host_ports(&self) -> Result<Vec<(Owner, HostPort)>, Error> {
        let mut ports = self.host_ports_of::<V4>()?;
        ports.extend(self.host_ports_of::<V6>()?);
        ports.sort_by_key(|(_, port)| *port);
        Ok(ports)
    }

    fn host_ports_of<V: Form>(&self) -> Result<Vec<(Owner, HostPort)>, Error> {
        let entries = entries_left(self.maps.host_ports::<V>(), V::HOST_PORTS)?;
        let port = |(key, target): (Key<V>, Target<V>)| {
            let port = HostPort {
                protocol: key.protocol,
                address: V::ip(key.address),
                port: key.port.get(),
                pod: V::ip(target.address),
                pod_port: target.port.get(),
            };
            (Owner(u64::from_ne_bytes(target.owner)), port)
        };
        Ok(entries.into_iter().map(port).collect())
    }
}
