//! The bridge. Its MAC is fixed when it is made: a bridge without one takes its lowest port's, and changes it as ports
//! come and go.

use std::fs::File;
use std::io;

use ipnetwork::IpNetwork;
use rtnetlink::{LinkBridge, LinkUnspec};

use super::link::Link;
use super::netlink::{exists, refused};
use super::state::State;
use super::{Error, Mac, Netlink, state, sysctl, veth};
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

/// Addresses that a bridge was given, and those that it had to give up for them.
#[derive(Debug, Default)]
pub struct Given {
    bridge: u32,
    is_ours: bool,
    /// The pods' host ends that were its ports before.
    ports: Vec<u32>,
    new: Vec<IpNetwork>,
    instead_of: Vec<IpNetwork>,
}

impl Given {
    /// Whether the bridge is as it was.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.new.is_empty() && self.instead_of.is_empty()
    }

    /// Puts it back, for an ADD that failed. Where pods have come to the bridge meanwhile, whose gateways the new addresses may
    /// be, these stay beside the old. Content where the bridge is gone.
    pub fn take_back(&self, netlink: &Netlink) -> Result<(), Error> {
        let _kept = Kept::alone()?;
        let Some(bridge) = netlink.link_of_index(self.bridge)? else { return Ok(()) };
        let ports = ports(netlink, &bridge)?;
        let has_come = |link: &Link| veth::is_ours(link) && !self.ports.contains(&link.index);
        let new = if ports.iter().any(has_come) { &[][..] } else { &self.new };
        let give_old = || {
            let mut old = self.instead_of.iter();
            old.try_for_each(|address| netlink.add_address(&bridge, *address).map(drop))
        };
        give_old()?;
        for address in new {
            netlink.remove_address(&bridge, *address)?;
        }
        give_old()?;
        if self.is_ours {
            return Ok(());
        }
        state::with(|state| state.took_back(&bridge, new, &self.instead_of))
    }
}

fn ports(netlink: &Netlink, bridge: &Link) -> Result<Vec<Link>, Error> {
    let mut links = netlink.links()?;
    links.retain(|link| link.master == Some(bridge.index));
    Ok(links)
}

/// Finds the bridge or makes it, and gives it its gateways, which `given` then tells, also if something fails.
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
            let alias = format!("{ALIAS}{}{UNUSED}", wanted.network);
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

/// Whether netplug made it.
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
    given.bridge = bridge.index;
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
    if !missing.is_empty() {
        given.ports = ports(netlink, bridge)?.iter().map(|link| link.index).collect();
    }
    for (gateway, found) in missing {
        let disable = format!("net/ipv6/conf/{}/disable_ipv6", wanted.name);
        if is_ours {
            if gateway.is_ipv6() {
                sysctl::of_device(&disable, "0")?;
            }
        } else {
            // Another's is to be as it was when netplug goes.
            state::with(|state| {
                if gateway.is_ipv6() {
                    sysctl::ensure(state, &disable, "0")?;
                }
                state.gives(bridge, gateway)
            })?;
        }
        // The old one goes last: with its last address a device forgets its neighbours, permanent ones too.
        if netlink.add_address(bridge, gateway)? {
            given.new.push(gateway);
        }
        let Some(found) = found else { continue };
        if !is_ours {
            state::with(|state| state.takes(bridge, found))?;
        }
        given.instead_of.push(found);
        netlink.remove_address(bridge, found)?;
        // With the first of a subnet the kernel may take those that came after it.
        if netlink.add_address(bridge, gateway)? && !given.new.contains(&gateway) {
            given.new.push(gateway);
        }
    }
    Ok(())
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
    let is_unnamed = || bridge.is_bridge() && bridge.alias.is_none() && state.has_made(bridge);
    if !(is_ours(bridge) || is_unnamed()) || !ports(netlink, bridge)?.is_empty() {
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
