//! Uplinks: UPLINKS, the addresses that CONFIG names, and the two programs on each.

use std::net::IpAddr;

use netplug_common::ip::{Address, Ipv4, Ipv6, V4, V6};
use netplug_common::maps::config::FAST_ADDRESSES;
use netplug_common::maps::nat::{HOST_PORT, MOVED, SPARE, TRANSLATED};
use netplug_common::maps::uplink::UplinkEntry;

use super::attach::{How, UPLINK_PROGRAMS, attach, attached, detach};
use super::maps::{Family, Table, entries, remove};
use super::pin::Lock;
use super::{Attach, Datapath, Error, Uplink, clsact};

const UNSPECIFIED4: Ipv4 = Ipv4 { octets: [0; 4] };
const UNSPECIFIED6: Ipv6 = Ipv6 { octets: [0; 16] };

impl Datapath {
    /// Makes `uplinks` the node's, and tells the programs nothing else. Whether they were others, or had other addresses.
    pub fn set_uplinks(&self, uplinks: &[Uplink], how: Attach) -> Result<bool, Error> {
        self.write_uplinks(&Lock::of_settings()?, uplinks, how)
    }

    /// Makes `uplinks` the node's: attaches to new ones, detaches from those that are gone. Flows that left by an address
    /// which an uplink has no more ask the host again, and its mappings end.
    pub(super) fn write_uplinks(
        &self,
        lock: &Lock,
        uplinks: &[Uplink],
        how: Attach,
    ) -> Result<bool, Error> {
        let mut map = self.maps.uplinks()?;
        let known = entries(&map, "UPLINKS")?;
        // The new ones first, and those that are gone last: one that takes no program is no reason to leave others.
        let is_known = |uplink: &&Uplink| known.iter().any(|(known, _)| *known == uplink.ifindex);
        let (old, new): (Vec<_>, Vec<_>) = uplinks.iter().partition(is_known);
        for (at, uplink) in new.iter().chain(&old).enumerate() {
            if let Err(error) = serve(&mut map, uplink, &known, how) {
                for uplink in new.iter().take(at + 1) {
                    // The first error is the one that tells.
                    let _ = leave(&mut map, uplink.ifindex);
                }
                return Err(error);
            }
        }
        for (ifindex, _) in &known {
            if !uplinks.iter().any(|uplink| uplink.ifindex == *ifindex) {
                leave(&mut map, *ifindex)?;
            }
        }
        let (mut known, mut now) = (known, entries(&map, "UPLINKS")?);
        known.sort_by_key(|(ifindex, _)| *ifindex);
        now.sort_by_key(|(ifindex, _)| *ifindex);
        let has_changed = known != now;
        if now.len() > FAST_ADDRESSES {
            let v4 = now.iter().map(|(_, entry)| entry.address4);
            self.add_locals::<V4>(v4.filter(|address| !address.is_unspecified()))?;
            let v6 = now.iter().map(|(_, entry)| entry.address6);
            self.add_locals::<V6>(v6.filter(|address| !address.is_unspecified()))?;
        }
        self.write_fast_addresses(lock, has_changed, now.iter().map(|(_, entry)| *entry))?;
        if has_changed {
            self.end_mappings::<V4>(&known, &now, |entry| entry.address4)?;
            self.end_mappings::<V6>(&known, &now, |entry| entry.address6)?;
        }
        Ok(has_changed)
    }

    /// Removes the mappings of addresses that were an uplink's `before` and are none's `now`.
    fn end_mappings<V: Family>(
        &self,
        before: &[(u32, UplinkEntry)],
        now: &[(u32, UplinkEntry)],
        address: impl Fn(&UplinkEntry) -> V::Address,
    ) -> Result<(), Error>
    where
        V::Address: aya::Pod,
    {
        let of = |entries: &[(u32, UplinkEntry)]| -> Vec<_> {
            entries.iter().map(|(_, entry)| address(entry)).collect()
        };
        let (mut gone, left) = (of(before), of(now));
        gone.retain(|address| !address.is_unspecified() && !left.contains(address));
        if gone.is_empty() {
            return Ok(());
        }
        let mut nat_out = self.maps.nat_out::<V>()?;
        for (tuple, mapping) in entries(&nat_out, V::NAT_OUT)? {
            let is_by_address = matches!(mapping.kind, TRANSLATED | HOST_PORT | MOVED);
            if is_by_address && gone.contains(&mapping.address) {
                remove(&mut nat_out, &tuple, V::NAT_OUT)?;
            }
        }
        let mut nat_in = self.maps.nat_in::<V>()?;
        for (tuple, mapping) in entries(&nat_in, V::NAT_IN)? {
            let is_spare = mapping.kind == SPARE && gone.contains(&mapping.address);
            if is_spare || gone.contains(&tuple.destination) {
                remove(&mut nat_in, &tuple, V::NAT_IN)?;
            }
        }
        Ok(())
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
        has_changed: bool,
        uplinks: impl Iterator<Item = UplinkEntry>,
    ) -> Result<(), Error> {
        let (mut v4, mut v6) = ([UNSPECIFIED4; FAST_ADDRESSES], [UNSPECIFIED6; FAST_ADDRESSES]);
        for (at, uplink) in uplinks.take(FAST_ADDRESSES).enumerate() {
            (v4[at], v6[at]) = (uplink.address4, uplink.address6);
        }
        self.change(lock, |config| {
            (config.uplinks4, config.uplinks6) = (v4, v6);
            // CONFIG names the first uplinks only, and flows may leave by any.
            config.epoch = config.epoch.wrapping_add(u32::from(has_changed));
        })
    }
}

/// Writes an uplink's entry, where it is not among the `known` ones, and attaches what does not hang there.
fn serve(
    map: &mut Table<u32, UplinkEntry>,
    uplink: &Uplink,
    known: &[(u32, UplinkEntry)],
    how: Attach,
) -> Result<(), Error> {
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
    Ok(())
}

/// Has an interface be an uplink no more.
fn leave(map: &mut Table<u32, UplinkEntry>, ifindex: u32) -> Result<(), Error> {
    for program in UPLINK_PROGRAMS {
        detach(ifindex, program)?;
    }
    clsact::give_back(ifindex)?;
    remove(map, &ifindex, "UPLINKS")
}

fn entry_of(uplink: &Uplink) -> UplinkEntry {
    let mut entry = UplinkEntry {
        address4: UNSPECIFIED4,
        address6: UNSPECIFIED6,
        route_mtu: uplink.route_mtu.unwrap_or(0),
    };
    for address in &uplink.addresses {
        match address {
            IpAddr::V4(address) => entry.address4 = Ipv4::from(*address),
            IpAddr::V6(address) => entry.address6 = Ipv6::from(*address),
        }
    }
    entry
}
