//! Static FDB entries and permanent neighbours: the bridge need not flood, nor the host ask, for a pod that is known.

use std::net::IpAddr;

use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};

use super::link::Link;
use super::netlink::refused;
use super::{Error, Mac, Netlink};

/// Tells the bridge that `mac` is behind the port `host_end`, for good. It goes with the port.
pub fn add_to_bridge(netlink: &Netlink, host_end: &Link, mac: Mac) -> Result<(), Error> {
    let request = netlink
        .handle()
        .neighbours()
        .add_bridge(host_end.index, &mac)
        .flags(NeighbourFlags::Controller)
        .state(NeighbourState::Noarp)
        .replace();
    netlink.run(request.execute()).map_err(refused("add an FDB entry to", &host_end.name))
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

/// Forgets the neighbour that has `mac` behind an interface, for each of `addresses`; content where there is none.
pub fn remove(netlink: &Netlink, index: u32, addresses: &[IpAddr]) -> Result<(), Error> {
    use futures_util::TryStreamExt;
    use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
    let known: Vec<_> = netlink
        .run(netlink.handle().neighbours().get().execute().try_collect())
        .map_err(refused("list", "neighbours"))?;
    for message in known {
        let is_of = message.header.ifindex == index
            && message.header.state == NeighbourState::Permanent
            && message.attributes.iter().any(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                    addresses.contains(&IpAddr::from(*address))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                    addresses.contains(&IpAddr::from(*address))
                }
                _ => false,
            });
        if is_of {
            match netlink.run(netlink.handle().neighbours().del(message).execute()) {
                Err(error) if !super::netlink::is_gone(&error) => {
                    return Err(refused("remove a neighbour of", format!("interface {index}"))(
                        error,
                    ));
                }
                _ => {}
            }
        }
    }
    Ok(())
}
