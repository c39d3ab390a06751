//! The uplinks that an ADD finds, and that are found again when the node changes.

use std::net::IpAddr;

use super::Error;
use crate::datapath::{Attach, Datapath, Lock, Uplink};
use crate::node::uplink::{self, Surroundings};
use crate::node::{self, Netlink, state};

/// The uplinks that there are now, with what pods leave as by each: those `named`, or those of default routes. Where none is
/// named, nor was before (`were_named`), also those known that are still there: default routes come and go.
pub fn find(
    netlink: &Netlink,
    datapath: &Datapath,
    named: Option<&[String]>,
    were_named: bool,
) -> Result<Vec<Uplink>, Error> {
    let (mut links, _) = uplink::find(netlink, named)?;
    let known = datapath.uplinks()?;
    if named.is_none() && !were_named {
        for (ifindex, _) in &known {
            if !links.iter().any(|link| link.index == *ifindex) {
                links.extend(netlink.link_of_index(*ifindex)?);
            }
        }
    }
    let surroundings = Surroundings::read(netlink)?;
    let mut uplinks = Vec::new();
    for link in links {
        let before = known.iter().find(|(ifindex, _)| *ifindex == link.index);
        let before = before.map_or(&[][..], |(_, addresses)| addresses);
        let uplink::Uplink { link, addresses, route_mtu } =
            surroundings.uplink(netlink, link, before)?;
        uplinks.push(Uplink { ifindex: link.index, addresses, route_mtu });
    }
    Ok(uplinks)
}

/// Makes the node's uplinks those that an ADD would find now. Whether that changed anything; `false` where nothing is loaded.
pub fn refresh(netlink: &Netlink) -> Result<bool, Error> {
    let _loaded = Lock::shared()?;
    let Some(datapath) = Datapath::open()? else { return Ok(false) };
    state::with(|state| {
        let choice = state.uplinks();
        let named = choice.named.as_deref().map(|names| there(netlink, names)).transpose()?;
        let uplinks = find(netlink, &datapath, named.as_deref(), choice.named.is_some())?;
        let has_changed = datapath.set_uplinks(&uplinks, Attach::from_name(&choice.attach))?;
        if !datapath.host_ports()?.is_empty() {
            datapath.write_local_addresses(&locals(netlink)?)?;
        }
        Ok(has_changed)
    })
}

/// Where kube-proxy's ipvs mode has the addresses of services (pkg/proxy/ipvs): no addresses of the node's.
const SERVICES: &str = "kube-ipvs0";

/// The node's addresses, by which HostPorts of any address may be called.
pub fn locals(netlink: &Netlink) -> Result<Vec<IpAddr>, node::Error> {
    let services = netlink.link(SERVICES)?.map(|link| link.index);
    let all = netlink.all_addresses()?.into_iter();
    Ok(all.filter(|(index, _)| Some(*index) != services).map(|(_, network)| network.ip()).collect())
}

/// Those of `names` that there are: one that is missing must not hide what becomes of the others.
fn there(netlink: &Netlink, names: &[String]) -> Result<Vec<String>, node::Error> {
    let mut there = Vec::new();
    for name in names {
        if netlink.link(name)?.is_some() {
            there.push(name.clone());
        }
    }
    Ok(there)
}
