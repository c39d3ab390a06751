//! The bridge. Its MAC is fixed when it is made: a bridge without one takes its lowest port's, and changes it as ports
//! come and go.

use ipnetwork::IpNetwork;
use rtnetlink::{LinkBridge, LinkUnspec};

use super::link::Link;
use super::netlink::{exists, refused};
use super::{Error, Mac, Netlink};

/// How a bridge that netplug made is told from others: its alias begins so.
const ALIAS: &str = "netplug ";

/// Finds the bridge or makes it, and gives it `gateways`. Returns it, and whether it is new.
pub fn ensure(
    netlink: &Netlink,
    name: &str,
    network: &str,
    mtu: u32,
    gateways: &[IpNetwork],
) -> Result<(Link, bool), Error> {
    let mut is_new = false;
    let bridge = match netlink.link(name)? {
        Some(link) => link,
        None => {
            is_new = make(netlink, name, mtu)?;
            netlink
                .link(name)?
                .ok_or_else(|| Error::NoInterface { name: name.into(), place: String::new() })?
        }
    };
    if !bridge.is_bridge() {
        return Err(Error::NotABridge { name: name.into() });
    }
    let has = netlink.addresses(bridge.index)?;
    for wanted in gateways {
        let same_network = |found: &&IpNetwork| {
            found.contains(wanted.network()) || wanted.contains(found.network())
        };
        match has.iter().find(same_network) {
            Some(found) if found == wanted => {}
            Some(found) => {
                return Err(Error::AddressConflict {
                    name: name.into(),
                    found: *found,
                    wanted: *wanted,
                });
            }
            None => drop(netlink.add_address(&bridge, *wanted)?),
        }
    }
    if is_new || !bridge.is_up {
        let mut message = LinkUnspec::new_with_index(bridge.index).up();
        if is_new {
            message = message.alias(format!("{ALIAS}{network}"));
        }
        netlink.set(message.build(), name)?;
    }
    Ok((bridge, is_new))
}

/// `false`: another process was first.
fn make(netlink: &Netlink, name: &str, mtu: u32) -> Result<bool, Error> {
    let message = LinkBridge::new(name).address(mac_of(name).to_vec()).mtu(mtu).build();
    match netlink.run(netlink.handle().link().add(message).execute()) {
        Ok(()) => Ok(true),
        Err(error) if exists(&error) => Ok(false),
        Err(error) => Err(refused("make the bridge", name)(error)),
    }
}

/// Removes a bridge, if netplug made it and it has no ports. Returns whether it did.
pub fn remove(netlink: &Netlink, name: &str) -> Result<bool, Error> {
    let Some(bridge) = netlink.link(name)? else { return Ok(false) };
    let is_ours =
        bridge.is_bridge() && bridge.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS));
    if !is_ours || netlink.links()?.iter().any(|link| link.master == Some(bridge.index)) {
        return Ok(false);
    }
    netlink.remove(&bridge).map(|()| true)
}

/// A locally administered MAC that is the same each time for a name (IEEE 802 §8.2).
#[must_use]
pub fn mac_of(name: &str) -> Mac {
    let [_, _, _, b, c, d, e, f] = crate::datapath::Owner::of(name, "", "").0.to_be_bytes();
    [0x02, b, c, d, e, f]
}
