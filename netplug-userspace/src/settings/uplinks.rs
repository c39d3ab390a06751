//! The uplinks that an ADD finds, and that are found again when the node changes.

use std::net::IpAddr;

use super::Error;
use crate::datapath::{Attach, Datapath, Lock, Uplink};
use crate::node::state;
use crate::node::{self, Netlink, uplink};

/// An uplink as the datapath is told of it.
pub fn told(found: uplink::Uplink) -> Uplink {
    let uplink::Uplink { link, addresses, route_mtu } = found;
    Uplink { ifindex: link.index, addresses, route_mtu }
}

/// Those of `uplinks`, and the known ones that are still there, with the addresses that they have now: default routes come
/// and go. Where none is named, nor was before: else the known ones are those that were.
pub fn with_known(
    netlink: &Netlink,
    datapath: &Datapath,
    mut uplinks: Vec<Uplink>,
) -> Result<Vec<Uplink>, Error> {
    let routes = netlink.routes()?;
    for (ifindex, _) in datapath.uplinks()? {
        let is_new = !uplinks.iter().any(|uplink| uplink.ifindex == ifindex);
        if is_new && let Some(link) = netlink.link_of_index(ifindex)? {
            uplinks.push(told(uplink::Uplink::of(netlink, link, &routes)?));
        }
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
        let (found, _) = uplink::find(netlink, named.as_deref())?;
        let mut uplinks: Vec<_> = found.into_iter().map(told).collect();
        if named.is_none() {
            uplinks = with_known(netlink, &datapath, uplinks)?;
        }
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
