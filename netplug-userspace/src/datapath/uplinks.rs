//! Uplinks: UPLINKS, the addresses that CONFIG names, and the two programs on each.

use std::net::IpAddr;

use netplug_common::ip::{Ipv4, Ipv6};
use netplug_common::maps::config::FAST_ADDRESSES;
use netplug_common::maps::uplink::UplinkEntry;

use super::attach::{How, UPLINK_PROGRAMS, attach, attached, detach};
use super::maps::{entries, remove};
use super::pin::Lock;
use super::{Attach, Datapath, Error, Uplink, clsact};

const UNSPECIFIED4: Ipv4 = Ipv4 { octets: [0; 4] };
const UNSPECIFIED6: Ipv6 = Ipv6 { octets: [0; 16] };

impl Datapath {
    /// Makes `uplinks` the node's: attaches to new ones, detaches from those that are gone.
    pub(super) fn write_uplinks(
        &self,
        lock: &Lock,
        uplinks: &[Uplink],
        how: Attach,
    ) -> Result<(), Error> {
        let mut map = self.maps.uplinks()?;
        let known = entries(&map, "UPLINKS")?;
        for (ifindex, _) in &known {
            if !uplinks.iter().any(|uplink| uplink.ifindex == *ifindex) {
                for program in UPLINK_PROGRAMS {
                    detach(*ifindex, program)?;
                }
                clsact::give_back(*ifindex)?;
                remove(&mut map, ifindex, "UPLINKS")?;
            }
        }
        for uplink in uplinks {
            let entry = entry_of(uplink);
            if !known.contains(&(uplink.ifindex, entry)) {
                map.insert(uplink.ifindex, entry, 0).map_err(|source| Error::Map {
                    verb: "write",
                    map: "UPLINKS",
                    source,
                })?;
            }
            for program in UPLINK_PROGRAMS {
                if attached(uplink.ifindex, program)?.is_none() {
                    attach(uplink.ifindex, program, how, How::Tcx)?;
                }
            }
        }
        let mut entries = entries(&map, "UPLINKS")?;
        entries.sort_by_key(|(ifindex, _)| *ifindex);
        self.write_fast_addresses(lock, entries.into_iter().map(|(_, entry)| entry))
    }

    /// The uplinks, with the addresses that they masquerade as.
    pub fn uplinks(&self) -> Result<Vec<(u32, Vec<IpAddr>)>, Error> {
        let uplinks = entries(&self.maps.uplinks()?, "UPLINKS")?;
        Ok(uplinks
            .into_iter()
            .map(|(ifindex, entry)| {
                let mut addresses = Vec::new();
                if entry.address4 != UNSPECIFIED4 {
                    addresses.push(IpAddr::from(std::net::Ipv4Addr::from(entry.address4)));
                }
                if entry.address6 != UNSPECIFIED6 {
                    addresses.push(IpAddr::from(std::net::Ipv6Addr::from(entry.address6)));
                }
                (ifindex, addresses)
            })
            .collect())
    }

    pub(super) fn reattach_uplinks(&self) -> Result<(), Error> {
        for (ifindex, _) in entries(&self.maps.uplinks()?, "UPLINKS")? {
            for program in UPLINK_PROGRAMS {
                let how = match attached(ifindex, program) {
                    Ok(Some(How::Clsact)) => Attach::Clsact,
                    Ok(Some(How::Tcx)) => Attach::Tcx,
                    Ok(None) => Attach::Auto,
                    // Gone; the next ADD forgets it.
                    Err(Error::Interface { .. }) => continue,
                    Err(error) => return Err(error),
                };
                attach(ifindex, program, how, How::Tcx)?;
            }
        }
        Ok(())
    }

    fn write_fast_addresses(
        &self,
        lock: &Lock,
        uplinks: impl Iterator<Item = UplinkEntry>,
    ) -> Result<(), Error> {
        let (mut v4, mut v6) = ([UNSPECIFIED4; FAST_ADDRESSES], [UNSPECIFIED6; FAST_ADDRESSES]);
        for (at, uplink) in uplinks.take(FAST_ADDRESSES).enumerate() {
            (v4[at], v6[at]) = (uplink.address4, uplink.address6);
        }
        self.change(lock, |config| (config.uplinks4, config.uplinks6) = (v4, v6))
    }
}

/// The first address of each family is what pods leave as.
fn entry_of(uplink: &Uplink) -> UplinkEntry {
    let v4 = uplink.addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(Ipv4::from(*address)),
        IpAddr::V6(_) => None,
    });
    let v6 = uplink.addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(Ipv6::from(*address)),
        IpAddr::V4(_) => None,
    });
    UplinkEntry {
        address4: v4.unwrap_or(UNSPECIFIED4),
        address6: v6.unwrap_or(UNSPECIFIED6),
        _pad: [0; 4],
    }
}
