//! The uplinks that an ADD finds, and that are found again when the node changes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Error;
use crate::datapath::{Attach, Datapath, Lock, Uplink};
use crate::node::state::{State, UplinkChoice};
use crate::node::uplink::{self, Pods, Surroundings};
use crate::node::{self, Netlink, state, sysctl};
use crate::warning::warn;

/// Which uplinks there are to be.
pub struct Wanted<'a> {
    /// Those of these names; or else those of default routes.
    pub named: Option<&'a [String]>,
    /// Whether some were named before.
    pub were_named: bool,
    /// The networks that pods are in.
    pub pods: Vec<IpNetwork>,
}

/// The uplinks that there are now, with what pods leave as by each. Where none is named, nor was before, also those known that
/// are still there: default routes come and go.
pub fn find(
    netlink: &Netlink,
    datapath: &Datapath,
    wanted: Wanted<'_>,
) -> Result<Vec<Uplink>, Error> {
    let Wanted { named, were_named, pods: networks } = wanted;
    let (mut links, _) = uplink::find(netlink, named)?;
    let known = datapath.uplinks()?;
    if named.is_none() && !were_named {
        for (ifindex, _) in &known {
            if !links.iter().any(|link| link.index == *ifindex) {
                links.extend(netlink.link_of_index(*ifindex)?);
            }
        }
    }
    let mut interfaces = datapath.interfaces_of_pods()?;
    interfaces.extend(services(netlink)?);
    let surroundings = Surroundings::read(netlink, Pods { networks, interfaces })?;
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

/// Those that stay named where a network names none, and another had: while there is no default route, nothing else tells what the
/// uplinks are.
pub fn still_named(
    netlink: &Netlink,
    choice: &UplinkChoice,
) -> Result<Option<Vec<String>>, node::Error> {
    let Some(names) = choice.named.as_ref().or(choice.kept.as_ref()) else { return Ok(None) };
    let (links, _) = uplink::find(netlink, None)?;
    Ok(links.is_empty().then(|| names.clone()))
}

/// Makes the node's uplinks those that an ADD would find now. Whether that changed anything; `false` where nothing is loaded.
pub fn refresh(netlink: &Netlink) -> Result<bool, Error> {
    let _loaded = Lock::shared()?;
    let Some(datapath) = Datapath::open()? else { return Ok(false) };
    state::with(|state| {
        let choice = state.uplinks().clone();
        let kept = if choice.named.is_none() { still_named(netlink, &choice)? } else { None };
        let named = choice.named.as_deref().or(kept.as_deref());
        let named = named.map(|names| there(netlink, names)).transpose()?;
        let wanted = Wanted {
            named: named.as_deref(),
            were_named: choice.were_named(),
            pods: state.masquerade().pods().collect(),
        };
        let uplinks = find(netlink, &datapath, wanted)?;
        let has_changed = datapath.set_uplinks(&uplinks, Attach::from_name(&choice.attach))?;
        forward(netlink, state, &uplinks);
        let prepared =
            state.prepare(|after| after.want_uplinks(UplinkChoice { kept, ..choice }))?;
        state.keep(prepared)?;
        if !datapath.host_ports()?.is_empty() {
            datapath.write_local_addresses(&locals(netlink)?)?;
        }
        Ok(has_changed)
    })
}

/// Has the node forward what comes in by uplinks, which serve by now: what cannot be is no reason to fail.
pub fn forward(netlink: &Netlink, state: &mut State, uplinks: &[Uplink]) {
    for uplink in uplinks {
        let found = netlink.link_of_index(uplink.ifindex);
        let done = found.and_then(|link| match link {
            Some(link) => sysctl::forward_from(state, &link),
            None => Ok(()),
        });
        if let Err(error) = done {
            warn(error);
        }
    }
}

/// Where kube-proxy's ipvs mode has the addresses of services (pkg/proxy/ipvs): no addresses of the node's.
const SERVICES: &str = "kube-ipvs0";

fn services(netlink: &Netlink) -> Result<Option<u32>, node::Error> {
    Ok(netlink.link(SERVICES)?.map(|link| link.index))
}

/// The node's addresses, by which HostPorts of any address may be called.
pub fn locals(netlink: &Netlink) -> Result<Vec<IpAddr>, node::Error> {
    let services = services(netlink)?;
    let all = netlink.all_addresses()?.into_iter();
    Ok(all.filter(|held| Some(held.index) != services).map(|held| held.network.ip()).collect())
}

/// Those of `names` that there are: one that is missing must not hide what becomes of the others.
pub fn there(netlink: &Netlink, names: &[String]) -> Result<Vec<String>, node::Error> {
    let mut there = Vec::new();
    for name in names {
        if netlink.link(name)?.is_some() {
            there.push(name.clone());
        }
    }
    Ok(there)
}
