//! Static FDB entries and permanent neighbours: the bridge need not flood, nor the host ask, for a pod that is known.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::link::Link;
use super::netlink::{exists, is_gone, is_unsupported, refused};
use super::{Error, Mac, Netlink};

/// How often an entry that the bridge had only heard of is moved; it may hear of it again in between.
const TRIES: usize = 8;

/// Tells the bridge that `mac` is behind the port `host_end`, for good: no frame moves it from there. It goes with the port.
///
/// Fails where the bridge was told that the MAC is elsewhere, or it is the bridge's own or another port's. Of two that ask at
/// once the kernel lets one have it. What the bridge has only heard is forgotten: a MAC may have moved here.
pub fn add_to_bridge(
    netlink: &Netlink,
    bridge: &Link,
    host_end: &Link,
    mac: Mac,
) -> Result<(), Error> {
    let fail = || refused("add an FDB entry to", &host_end.name);
    let request = || {
        let neighbours = netlink.handle().neighbours();
        neighbours
            .add_bridge(host_end.index, &mac)
            .flags(NeighbourFlags::Controller | NeighbourFlags::Sticky)
            .state(NeighbourState::Noarp)
    };
    for _ in 0..TRIES {
        match netlink.run(request().execute()) {
            Err(error) if exists(&error) => {}
            added => return added.map_err(fail()),
        }
        let known = of_mac(netlink, bridge, mac)?;
        let is_heard = |state| !matches!(state, NeighbourState::Noarp | NeighbourState::Permanent);
        let told = known.iter().find(|entry| !is_heard(entry.header.state));
        match told.map(|entry| (entry.header.ifindex, entry.header.state)) {
            // Of an ADD that was killed.
            Some((port, NeighbourState::Noarp)) if port == host_end.index => {
                return netlink.run(request().replace().execute()).map_err(fail());
            }
            Some((port, _)) => {
                let at = netlink.link_of_index(port)?.map_or_else(String::new, |link| link.name);
                return Err(Error::MacTaken { mac, bridge: bridge.name.clone(), at });
            }
            None => {}
        }
        // By its port: what another tells the bridge meanwhile stays.
        for mut entry in known {
            entry.header.flags = NeighbourFlags::Controller;
            entry.header.state = NeighbourState::None;
            let is_of_entry = |it: &NeighbourAttribute| {
                matches!(it, NeighbourAttribute::LinkLayerAddress(_) | NeighbourAttribute::Vlan(_))
            };
            entry.attributes.retain(is_of_entry);
            delete(netlink, entry, || format!("an FDB entry of {}", bridge.name))?;
        }
    }
    netlink.run(request().execute()).map_err(fail())
}

/// What a bridge knows of a MAC.
fn of_mac(netlink: &Netlink, bridge: &Link, wanted: Mac) -> Result<Vec<NeighbourMessage>, Error> {
    let mut known = fdb(netlink)?;
    known.retain(|message| {
        let is_bridges =
            |it: &NeighbourAttribute| *it == NeighbourAttribute::Controller(bridge.index);
        message.attributes.iter().any(is_bridges) && mac(message) == Some(wanted)
    });
    Ok(known)
}

/// Tells the host the MAC of `address`, for good.
pub fn add(netlink: &Netlink, link: &Link, address: IpAddr, mac: Mac) -> Result<(), Error> {
    let request = netlink
        .handle()
        .neighbours()
        .add(link.index, address)
        .state(NeighbourState::Permanent)
        .link_layer_address(&mac)
        .replace();
    netlink
        .run(request.execute())
        .map_err(refused("add a neighbour to", format!("{}: {address}", link.name)))
}

/// Takes back what `add_to_bridge` did; content where the port or the entry is gone.
pub fn remove_from_bridge(netlink: &Netlink, host_end: u32, mac: Mac) -> Result<(), Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = host_end;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    delete(netlink, message, || format!("the FDB entry of interface {host_end}"))
}

/// Forgets the neighbours `addresses` of an interface; content where there are none.
pub fn remove(netlink: &Netlink, index: u32, addresses: &[IpAddr]) -> Result<(), Error> {
    for address in addresses {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        let destination = match address {
            IpAddr::V4(address) => {
                message.header.family = AddressFamily::Inet;
                NeighbourAddress::Inet(*address)
            }
            IpAddr::V6(address) => {
                message.header.family = AddressFamily::Inet6;
                NeighbourAddress::Inet6(*address)
            }
        };
        message.attributes.push(NeighbourAttribute::Destination(destination));
        delete(netlink, message, || format!("the neighbour {address} of interface {index}"))?;
    }
    Ok(())
}

/// Forgets `addresses` on a bridge, where it was told that they are at `mac`.
pub fn remove_at(
    netlink: &Netlink,
    bridge: u32,
    addresses: &[IpAddr],
    mac: Mac,
) -> Result<(), Error> {
    for (index, address, known) in permanent(netlink)? {
        if index == bridge && known == mac && addresses.contains(&address) {
            remove(netlink, index, &[address])?;
        }
    }
    Ok(())
}

/// Forgets the neighbours that a bridge, or any interface, was told are at `mac`, for who does not know their addresses.
pub fn remove_of(netlink: &Netlink, bridge: Option<u32>, mac: Mac) -> Result<(), Error> {
    for (index, address, known) in permanent(netlink)? {
        if known == mac && bridge.is_none_or(|bridge| bridge == index) {
            remove(netlink, index, &[address])?;
        }
    }
    Ok(())
}

/// What the bridge was told to be behind a port.
pub fn behind(netlink: &Netlink, port: u32) -> Result<Vec<Mac>, Error> {
    let known = on_bridges(netlink)?.into_iter();
    Ok(known.filter(|(index, _)| *index == port).map(|(_, mac)| mac).collect())
}

fn delete(
    netlink: &Netlink,
    message: NeighbourMessage,
    object: impl FnOnce() -> String,
) -> Result<(), Error> {
    match netlink.run(netlink.handle().neighbours().del(message).execute()) {
        // An interface that is no port has no FDB.
        Err(error) if !is_gone(&error) && !is_unsupported(&error) => {
            Err(refused("remove", object())(error))
        }
        _ => Ok(()),
    }
}

/// The permanent neighbours, by interface, address and MAC.
pub fn permanent(netlink: &Netlink) -> Result<Vec<(u32, IpAddr, Mac)>, Error> {
    let known = dump(netlink, netlink.handle().neighbours().get())?;
    let of = |message: NeighbourMessage| {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::from(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::from(*address))
            }
            _ => None,
        })?;
        let is_permanent = message.header.state == NeighbourState::Permanent;
        is_permanent.then_some((message.header.ifindex, address, mac(&message)?))
    };
    Ok(known.into_iter().filter_map(of).collect())
}

/// The static FDB entries, by port and MAC.
pub fn on_bridges(netlink: &Netlink) -> Result<Vec<(u32, Mac)>, Error> {
    let of = |message: NeighbourMessage| {
        let is_static = message.header.state == NeighbourState::Noarp;
        is_static.then_some((message.header.ifindex, mac(&message)?))
    };
    Ok(fdb(netlink)?.into_iter().filter_map(of).collect())
}

fn fdb(netlink: &Netlink) -> Result<Vec<NeighbourMessage>, Error> {
    let mut request = netlink.handle().neighbours().get();
    request.message_mut().header.family = AddressFamily::Bridge;
    dump(netlink, request)
}

fn dump(
    netlink: &Netlink,
    request: rtnetlink::NeighbourGetRequest,
) -> Result<Vec<NeighbourMessage>, Error> {
    netlink.run(request.execute().try_collect()).map_err(refused("list", "neighbours"))
}

fn mac(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}
