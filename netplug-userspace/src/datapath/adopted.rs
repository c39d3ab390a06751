//! Ports of adopted bridges: `from_pod` alone, and an entry in PORTS that says so. An endpoint's port is never touched.
//!
//! A port is attached to before PORTS has it, and taken off before PORTS has it no more: who was killed in between has left
//! nothing that steers and nobody knows of.

use aya::maps::MapError;
use bytemuck::Zeroable;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::port::{ADOPTED, PodPort, unrouted};

use super::attach::{How, attach, attached, detach, replace};
use super::maps::{entries_left, left, remove};
use super::pin::Lock;
use super::{Attach, Datapath, Error, clsact};

/// A port of an adopted bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdoptedPort {
    /// Its interface index.
    pub ifindex: u32,
    /// The bridge's.
    pub bridge: u32,
    /// Its own MAC.
    pub mac: [u8; 6],
}

impl Datapath {
    /// The adopted ports, as far as what is left of the maps tells.
    pub fn adopted(&self) -> Result<Vec<AdoptedPort>, Error> {
        let ports = entries_left(self.maps.ports(), "PORTS")?.into_iter();
        let adopted = ports.filter(|(_, port)| port.flags & ADOPTED != 0);
        let mut adopted: Vec<_> = adopted
            .map(|(ifindex, port)| AdoptedPort {
                ifindex,
                bridge: port.bridge,
                mac: port.gateway_mac,
            })
            .collect();
        adopted.sort_by_key(|port| port.ifindex);
        Ok(adopted)
    }

    /// Has what comes in by a port be steered. `false`: it is an endpoint's, and stays so.
    pub fn adopt(&self, port: &AdoptedPort) -> Result<bool, Error> {
        // Nobody registers an endpoint there meanwhile.
        let _addresses = Lock::of_addresses()?;
        if self.is_endpoints(port.ifindex)? {
            return Ok(false);
        }
        clsact::note_if_free(port.ifindex)?;
        attach(port.ifindex, "from_pod", Attach::Auto, How::Clsact)?;
        let entry = PodPort {
            gateway_mac: port.mac,
            bridge: port.bridge,
            flags: ADOPTED | unrouted::<V4>() | unrouted::<V6>(),
            ..PodPort::zeroed()
        };
        let fail = |source| Error::Map { verb: "write", map: "PORTS", source };
        self.maps.ports()?.insert(port.ifindex, entry, 0).map_err(fail)?;
        Ok(true)
    }

    /// Has it be steered no more, and takes off what was put there. Content where it is not, or is gone. `false`: it is an
    /// endpoint's, and stays so.
    pub fn release(&self, ifindex: u32) -> Result<bool, Error> {
        // As above.
        let _addresses = Lock::of_addresses()?;
        if self.is_endpoints(ifindex)? {
            return Ok(false);
        }
        detach(ifindex, "from_pod")?;
        clsact::give_back(ifindex)?;
        if let Some(mut ports) = left(self.maps.ports())? {
            remove(&mut ports, &ifindex, "PORTS")?;
        }
        Ok(true)
    }

    /// Whether a port is an endpoint's. Where PORTS is lost, by what hangs there: an adopted one has `from_pod` alone.
    fn is_endpoints(&self, ifindex: u32) -> Result<bool, Error> {
        let Some(ports) = left(self.maps.ports())? else {
            return match attached(ifindex, "to_pod") {
                Err(Error::Interface { .. }) => Ok(false),
                found => found.map(|how| how.is_some()),
            };
        };
        match ports.get(&ifindex, 0) {
            Ok(port) => Ok(port.flags & ADOPTED == 0),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(source) => Err(Error::Map { verb: "read", map: "PORTS", source }),
        }
    }

    /// Puts the pinned program where an older one hangs.
    pub(super) fn reattach_adopted(&self) -> Result<(), Error> {
        self.adopted()?.iter().try_for_each(|port| replace(port.ifindex, "from_pod"))
    }
}
