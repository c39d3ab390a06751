//! The bridge. Its MAC is fixed when it is made: a bridge without one takes its lowest port's, and changes it as ports
//! come and go.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use ipnetwork::IpNetwork;
use rtnetlink::{LinkBridge, LinkUnspec};

use super::link::Link;
use super::netlink::{exists, refused};
use super::state::State;
use super::{Error, Mac, Netlink, link, state, sysctl};
use crate::digest;

/// How a bridge that netplug made is told from others: its alias begins so.
const ALIAS: &str = "netplug ";
/// And ends so until an ADD has ended well: those that fail leave none behind that they or others who failed have made.
const UNUSED: &str = ", no pod yet";
const LOCK: &str = "bridges.lock";

/// What a bridge is to be.
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// The network that it is made for.
    pub network: &'a str,
    /// MTU in L3 bytes, where it is to be made.
    pub mtu: u32,
    /// Its addresses: the pods' gateways.
    pub gateways: &'a [IpNetwork],
    /// Whether an address of the same network that it has is replaced, rather than refused.
    pub force_address: bool,
}

/// Keeps bridges from being removed until it is dropped: for who finds one that has no port yet, until it has.
pub struct Kept(#[expect(dead_code, reason = "held for its lock")] File);

impl Kept {
    /// Beside others who keep them.
    pub fn shared() -> Result<Self, Error> {
        Self::take(File::lock_shared)
    }

    /// For who removes one.
    pub(super) fn alone() -> Result<Self, Error> {
        Self::take(File::lock)
    }

    fn take(lock: fn(&File) -> io::Result<()>) -> Result<Self, Error> {
        let fail = |source| Error::System { verb: "lock", object: LOCK.into(), source };
        let file = state::lock_file(LOCK).map_err(fail)?;
        lock(&file).map_err(fail)?;
        Ok(Self(file))
    }
}

/// What an ADD has done to a bridge's addresses, beside what the state file keeps of it.
#[derive(Debug, Default)]
pub struct Given {
    /// None where it did not get that far.
    bridge: Option<u32>,
    is_ours: bool,
    /// What the bridge had to give up for its gateways.
    instead_of: Vec<IpNetwork>,
}

impl Given {
    /// Puts it back, for an ADD that failed: what the bridge gave up, and of what it was given that with which no ADD has ended
    /// well. Where ports have come to the bridge since, whose gateways the new addresses may be, these stay beside the old, for the
    /// last that fails to take back. Content where the bridge is gone. Returns whether anything changed.
    pub fn take_back(&self, netlink: &Netlink) -> Result<bool, Error> {
        let _kept = Kept::alone()?;
        let Some(index) = self.bridge else { return Ok(false) };
        let Some(bridge) = netlink.link_of_index(index)? else { return Ok(false) };
        state::with(|state| {
            let new = state.given_for_nobody(&bridge, &ports(netlink, &bridge)?);
            if new.is_empty() && self.instead_of.is_empty() {
                return Ok(false);
            }
            let is_old = |address: &IpNetwork| !new.contains(address);
            let instead_of: Vec<_> = self.instead_of.iter().copied().filter(is_old).collect();
            let mut old = netlink.addresses(bridge.index)?;
            old.retain(is_old);
            old.extend(&instead_of);
            let give_old = || {
                let mut old = old.iter();
                old.try_for_each(|address| netlink.add_address(&bridge, *address).map(drop))
            };
            // Before: with its last address a device forgets its neighbours, permanent ones too. And after: with the first of a
            // subnet the kernel may take those that came after it.
            give_old()?;
            for address in &new {
                netlink.remove_address(&bridge, *address)?;
            }
            give_old()?;
            state.took_back(&bridge, self.is_ours, &new, &instead_of)?;
            Ok(true)
        })
    }
}

fn ports(netlink: &Netlink, bridge: &Link) -> Result<BTreeSet<u32>, Error> {
    let links = netlink.links()?.into_iter();
    Ok(links.filter(|link| link.master == Some(bridge.index)).map(|link| link.index).collect())
}

/// Finds the bridge or makes it, and gives it its gateways; `given` takes that back, also if something fails.
pub fn ensure(netlink: &Netlink, wanted: &Wanted<'_>, given: &mut Given) -> Result<Link, Error> {
    let name = wanted.name;
    let mut bridge = netlink.link(name)?;
    if bridge.is_none() {
        make(netlink, name, mac_of(name, wanted.gateways.first()), wanted.mtu)?;
        bridge = netlink.link(name)?;
    }
    let mut bridge =
        bridge.ok_or_else(|| Error::NoInterface { name: name.into(), place: String::new() })?;
    if !bridge.is_bridge() {
        return Err(Error::NotABridge { name: name.into() });
    }
    // Made just now, or by one who was killed before he could say so.
    let is_unnamed =
        bridge.alias.is_none() && state::with(|state| Ok::<_, Error>(state.has_made(&bridge)))?;
    if is_unnamed {
        // Before it is up: what a pod advertises must not become the node's route (CVE-2020-10749).
        sysctl::of_device(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
    }
    let is_ours = is_unnamed || is_ours(&bridge);
    give_addresses(netlink, &bridge, wanted, is_ours, given)?;
    if is_unnamed || !bridge.is_up {
        let mut message = LinkUnspec::new_with_index(bridge.index).up();
        if is_unnamed {
            let alias = link::alias(&format!("{ALIAS}{}", wanted.network), UNUSED);
            message = message.alias(alias.clone());
            bridge.alias = Some(alias);
        }
        netlink.set(message.build(), name)?;
    }
    if is_ours { Ok(bridge) } else { fix_mac(netlink, &bridge) }
}

/// Says of a bridge that netplug made that a pod has come to it, so that it stays.
pub fn keep(netlink: &Netlink, bridge: &Link) -> Result<(), Error> {
    let Some(alias) = bridge.alias.as_deref().and_then(|alias| alias.strip_suffix(UNUSED)) else {
        return Ok(());
    };
    let message = LinkUnspec::new_with_index(bridge.index).alias(alias);
    netlink.set(message.build(), &bridge.name)
}

/// Has a bridge that another made keep the MAC that it has, and returns it as it is then: one that was never given its own
/// takes that of its lowest port, and pods know their gateway's for good. Done once: whenever a MAC is set, be it to what it
/// is, the kernel forgets the device's neighbours, permanent ones too.
pub fn fix_mac(netlink: &Netlink, bridge: &Link) -> Result<Link, Error> {
    state::with(|state| {
        // Its MAC may have changed with another pod's port meanwhile.
        let bridge = netlink.link_of_index(bridge.index)?.ok_or_else(|| Error::NoInterface {
            name: bridge.name.clone(),
            place: String::new(),
        })?;
        if !state.is_fixed(&bridge) {
            let message = LinkUnspec::new_with_index(bridge.index).address(bridge.mac.to_vec());
            netlink.set(message.build(), &bridge.name)?;
            state.fixed(&bridge)?;
        }
        Ok(bridge)
    })
}

/// Whether netplug made it, be it that it could not say so yet.
#[must_use]
pub fn is_netplugs(bridge: &Link, state: &State) -> bool {
    let is_unnamed = bridge.is_bridge() && bridge.alias.is_none() && state.has_made(bridge);
    is_ours(bridge) || is_unnamed
}

/// Whether netplug made it, as it says.
fn is_ours(bridge: &Link) -> bool {
    bridge.is_bridge() && bridge.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))
}

fn give_addresses(
    netlink: &Netlink,
    bridge: &Link,
    wanted: &Wanted<'_>,
    is_ours: bool,
    given: &mut Given,
) -> Result<(), Error> {
    given.bridge = Some(bridge.index);
    given.is_ours = is_ours;
    let has = netlink.addresses(bridge.index)?;
    let mut missing = Vec::new();
    for gateway in wanted.gateways.iter().filter(|gateway| !has.contains(gateway)) {
        let conflict = |found: &&IpNetwork| {
            found.contains(gateway.network()) || gateway.contains(found.network())
        };
        missing.push((*gateway, has.iter().find(conflict).copied()));
    }
    // All are looked at before one is changed.
    for (gateway, found) in &missing {
        if let Some(found) = found
            && !wanted.force_address
        {
            return Err(Error::AddressConflict {
                name: wanted.name.into(),
                found: *found,
                wanted: *gateway,
            });
        }
    }
    for (gateway, found) in missing {
        give(netlink, bridge, is_ours, gateway)?;
        let Some(found) = found else { continue };
        if !is_ours {
            state::with(|state| state.takes(bridge, found))?;
        }
        given.instead_of.push(found);
        // Last: with its last address a device forgets its neighbours, permanent ones too.
        netlink.remove_address(bridge, found)?;
        // With the first of a subnet the kernel may take those that came after it.
        give(netlink, bridge, is_ours, gateway)?;
    }
    Ok(())
}

/// Gives a bridge an address, and keeps that it was netplug; content where it has it, be it from another who was first.
fn give(netlink: &Netlink, bridge: &Link, is_ours: bool, address: IpNetwork) -> Result<(), Error> {
    state::with(|state| {
        if netlink.addresses(bridge.index)?.contains(&address) {
            return Ok(());
        }
        if address.is_ipv6() {
            let disable = format!("net/ipv6/conf/{}/disable_ipv6", bridge.name);
            if is_ours {
                sysctl::of_device(&disable, "0")?;
            } else {
                // Another's is to be as it was when netplug goes.
                sysctl::ensure(state, &disable, "0")?;
            }
        }
        let before = state.clone();
        state.gives(bridge, is_ours, address, ports(netlink, bridge)?)?;
        let added = netlink.add_address(bridge, address);
        if !matches!(added, Ok(true)) {
            // Whoever gives it now, it is not netplug's to take away.
            let gone_back = state.go_back_to(before);
            added?;
            gone_back?;
        }
        Ok(())
    })
}

/// Content where another process was first. On file before it is there: the kernel gives a link that it makes no alias.
fn make(netlink: &Netlink, name: &str, mac: Mac, mtu: u32) -> Result<(), Error> {
    state::with(|state| state.makes(name, mac))?;
    let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).build();
    match netlink.run(netlink.handle().link().add(message).execute()) {
        Err(error) if !exists(&error) => Err(refused("make the bridge", name)(error)),
        _ => Ok(()),
    }
}

/// Removes a bridge that netplug made, for an ADD that failed, if no other has ended well and it has no ports.
pub fn remove_unused(netlink: &Netlink, name: &str) -> Result<(), Error> {
    let kept = Kept::alone()?;
    let Some(bridge) = netlink.link(name)? else { return Ok(()) };
    if bridge.alias.as_deref().is_some_and(|alias| !alias.ends_with(UNUSED)) {
        return Ok(());
    }
    state::with(|state| remove(netlink, &bridge, state, &kept).map(drop))
}

/// Removes a bridge, if netplug made it and it has no ports. Returns whether it did.
pub(super) fn remove(
    netlink: &Netlink,
    bridge: &Link,
    state: &State,
    _alone: &Kept,
) -> Result<bool, Error> {
    if !is_netplugs(bridge, state) || !ports(netlink, bridge)?.is_empty() {
        return Ok(false);
    }
    netlink.remove(bridge).map(|()| true)
}

/// A locally administered MAC (IEEE 802 §8.2) that is the same each time for a name and a gateway, and another on the
/// next node, whose pods have another network.
fn mac_of(name: &str, gateway: Option<&IpNetwork>) -> Mac {
    let gateway = gateway.map(ToString::to_string).unwrap_or_default();
    let [_, _, _, b, c, d, e, f] = digest::of(&[name, &gateway]).to_be_bytes();
    [0x02, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridges_mac_is_local_unicast_lasts_and_differs_between_nodes() {
        let gateways = ["10.1.1.1/24", "10.1.2.1/24"].map(|cidr| cidr.parse().unwrap());
        let [one, other] = gateways.map(|gateway| mac_of("cbr0", Some(&gateway)));
        assert_eq!(one, mac_of("cbr0", Some(&gateways[0])));
        assert_ne!(one, other);
        assert_eq!(one[0] & 0b11, 0b10);
    }
}
