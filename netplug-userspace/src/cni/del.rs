//! DEL: take a pod's interface away. ADD's mirror image.
//!
//! 1 switch a bridge's host end off  2 forget its neighbours and, chained, its FDB entry  3 detach, void its flows, forget the
//! endpoint  4 remove the veth, if netplug made it  5 give the addresses back, if nobody answers on them any more
//!
//! Needs neither `prevResult` nor the namespace, is content with what is gone already, and goes through all steps
//! whatever fails: each failure is reported.

use serde_json::Value;

use super::Error;
use super::add::{Names, remove_veth};
use super::request::Request;
use crate::datapath::{self, Attach, Datapath, Endpoint, Lock, Owner, PodId};
use crate::ipam::{Store, store};
use crate::node::link::Link;
use crate::node::{Netlink, neighbour, veth};

pub(super) fn run(request: &Request) -> Result<(), Error> {
    // Read by hand: a configuration that ADD would refuse still has to be taken down.
    let text = |pointer| request.config.pointer(pointer).and_then(Value::as_str);
    let is_chained = request.config.get("ipam").is_none_or(Value::is_null);
    let leases =
        Store::new(text("/ipam/dataDir").unwrap_or(store::DATA_DIR).as_ref(), &request.network);
    let owner = Owner::of(&request.network, &request.container, &request.ifname);
    let mut failures = Vec::new();
    let mut step = |result: Result<(), Error>| {
        if let Err(error) = result {
            failures.push(error.whole());
        }
    };
    // A build that is being loaded must not put its programs where the old ones are taken off.
    let _lock = Lock::shared().map_err(|error| step(Err(error.into())));
    // What follows is found by the endpoint, so that is forgotten after it.
    let endpoints = known(request, owner).unwrap_or_else(|error| {
        step(Err(error));
        Vec::new()
    });
    for endpoint in &endpoints {
        step(silence(endpoint));
        step(forget_neighbours(endpoint, is_chained));
    }
    let forgotten = forget(owner).and_then(|()| forget_unowned(&endpoints));
    let mut is_gone = forgotten.is_ok();
    step(forgotten);
    if !is_chained {
        let removed = remove_interface(&leases, request);
        is_gone &= removed.is_ok();
        step(removed);
        if is_gone {
            step(leases.release(&request.container, &request.ifname).map_err(Error::from));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::Several(failures)) }
}

/// Removes the veth. Where there is none of netplug's and the pod has leased addresses all the same, another plugin gave it
/// its interface (`bridge`, or kubenet): that one is taken out of the pod.
fn remove_interface(leases: &Store, request: &Request) -> Result<(), Error> {
    let held = leases.held_by(&request.container, &request.ifname)?;
    if remove_veth(&Names::of(request).host_end)? || held.is_empty() {
        return Ok(());
    }
    let Some(pod) = request.what_is_left_of_pod()? else { return Ok(()) };
    Ok(pod.enter(|netlink| {
        let Some(link) = netlink.link(&request.ifname)? else { return Ok(()) };
        let addresses = netlink.addresses(link.index)?;
        // An ADD that was killed early leaves a lease, and the pod's own interface as it was.
        let is_plugins = addresses.iter().any(|network| held.contains(&network.ip()));
        if is_plugins { netlink.remove(&link) } else { Ok(()) }
    })?)
}

/// What is registered of `owner`. Where PORTS is lost: what the interface tells, by its name or by the runtime's word.
fn known(request: &Request, owner: Owner) -> Result<Vec<Endpoint>, Error> {
    let Some(datapath) = loaded()? else { return Ok(Vec::new()) };
    let mut known = datapath.endpoints()?;
    known.retain(|endpoint| endpoint.owner == owner);
    if known.is_empty() && !datapath.is_whole() {
        let (netlink, names) = (Netlink::open()?, Names::of(request));
        let interfaces = request.config.pointer("/prevResult/interfaces").and_then(Value::as_array);
        let named = interfaces.into_iter().flatten().filter_map(|it| it.get("name")?.as_str());
        let served = datapath::served()?;
        for name in named.chain([names.host_end.as_str()]) {
            let Some(link) = netlink.link(name)?.filter(|it| served.contains(&it.index)) else {
                continue;
            };
            let behind = neighbour::behind(&netlink, link.index)?.first().copied();
            known.push(Endpoint {
                ifindex: link.index,
                owner,
                pod: PodId::of(&request.container),
                bridge: link.master,
                gateway_mac: link.mac,
                pod_mac: behind.unwrap_or(names.pod_mac),
                addresses: Vec::new(),
                unrouted: Vec::new(),
                source_guard: true,
                attach: Attach::Auto,
            });
        }
    }
    Ok(known)
}

pub(super) fn forget(owner: Owner) -> Result<(), Error> {
    if let Some(datapath) = loaded()? {
        datapath.unregister(owner)?;
    }
    Ok(())
}

/// The same where PORTS is lost, so that nothing there is found by its owner.
fn forget_unowned(endpoints: &[Endpoint]) -> Result<(), Error> {
    if let Some(datapath) = loaded()?
        && !datapath.is_whole()
    {
        for endpoint in endpoints {
            datapath.unregister_interface(endpoint.ifindex)?;
        }
    }
    Ok(())
}

/// What is left of the datapath; `None` also where another netplug's is loaded, which knows nothing of what this one would
/// forget.
fn loaded() -> Result<Option<Datapath>, Error> {
    match Datapath::open_what_is_left() {
        Err(datapath::Error::Layout { .. }) => Ok(None),
        opened => Ok(opened?),
    }
}

/// Has nothing pass a bridge's host end any more, where programs hang: once they are off, the pod would be guarded no more,
/// and what it answers as a service's would go past the host that translates it. Chained, the plugin that made it takes it away
/// next.
fn silence(endpoint: &Endpoint) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    let found = netlink.link_of_index(endpoint.ifindex)?.filter(Link::is_veth);
    // Routed, the host sees all that the pod says, and the kernel would drop the IPv6 addresses that the other plugin gave.
    let found = found.filter(|host_end| host_end.master.is_some());
    let Some((host_end, datapath)) = found.zip(loaded()?) else { return Ok(()) };
    match datapath.how_attached(host_end.index, "from_pod") {
        Ok(Some(_)) => Ok(veth::switch_off(&netlink, &host_end)?),
        // An ADD was killed before it attached; or the interface has gone by now.
        Ok(None) | Err(datapath::Error::Interface { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// By the bridge, not the host end, which may be gone with the pod's namespace.
fn forget_neighbours(endpoint: &Endpoint, is_chained: bool) -> Result<(), Error> {
    let Some(bridge) = endpoint.bridge else { return Ok(()) };
    let netlink = Netlink::open()?;
    // By the pod's MAC: an address may be another's by now.
    neighbour::remove_at(&netlink, bridge, &endpoint.addresses, endpoint.pod_mac)?;
    if loaded()?.is_some_and(|datapath| !datapath.is_whole()) {
        // Not all addresses may be known any more.
        neighbour::remove_of(&netlink, Some(bridge), endpoint.pod_mac)?;
    }
    if is_chained {
        neighbour::remove_from_bridge(&netlink, endpoint.ifindex, endpoint.pod_mac)?;
    }
    Ok(())
}
