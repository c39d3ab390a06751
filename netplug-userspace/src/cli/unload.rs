//! `netplug unload`: leave the node as it was.

use std::collections::BTreeSet;

use anyhow::bail;
use serde_json::json as object;

use super::interface;
use super::output::{Format, json, line};
use crate::datapath::{self, Datapath, Endpoint, Lock};
use crate::node::{self, Netlink, neighbour, veth};

pub fn run(format: Format, force: bool) -> anyhow::Result<()> {
    // From here on no pod is added.
    let lock = Lock::exclusive()?;
    let known = Datapath::open_what_is_left()
        .and_then(|left| left.map_or_else(|| Ok(Vec::new()), |datapath| datapath.endpoints()));
    let endpoints = match known {
        // Whatever is pinned there, it is to go.
        Err(datapath::Error::Layout { .. }) if force => Vec::new(),
        known => known?,
    };
    // By the devices too, since pins may be lost. Those whose interface vanished without a DEL are nobody's.
    let mut served: BTreeSet<u32> = datapath::served()?.into_iter().collect();
    let is_there = |ifindex: &u32| datapath::interface_name(*ifindex).is_ok();
    served.extend(endpoints.iter().map(|endpoint| endpoint.ifindex).filter(is_there));
    let names: Vec<_> = served.iter().map(|ifindex| interface(*ifindex)).collect();
    if !names.is_empty() && !force {
        bail!(
            "{} pods are served, behind {}; DEL them first, or add --force: until they are added anew they reach only one \
             another, by the bridge, and whatever else the node routes to without netplug's sysctls",
            names.len(),
            names.join(", ")
        );
    }
    let netlink = Netlink::open()?;
    for ifindex in &served {
        for mac in neighbour::behind(&netlink, *ifindex)? {
            neighbour::remove_of(&netlink, None, mac)?;
        }
    }
    endpoints.iter().try_for_each(|endpoint| forget(&netlink, endpoint))?;
    let pins = datapath::unload(&lock)?.len();
    let restored = node::state::restore()?;
    if format == Format::Json {
        return json("unloaded", object!({"removed_pins": pins, "restored": restored}));
    }
    if pins == 0 && restored.is_empty() {
        return line("nothing was loaded");
    }
    line(&format!("programs detached, {pins} pins removed"))?;
    restored.iter().try_for_each(|done| line(done))
}

/// What bridge and host were told of a pod for good would outlive it, once nobody knows of it.
fn forget(netlink: &Netlink, endpoint: &Endpoint) -> anyhow::Result<()> {
    let Some(bridge) = endpoint.bridge else { return Ok(()) };
    neighbour::remove(netlink, bridge, &endpoint.addresses)?;
    // A port that netplug made learns nothing by itself, and takes its entry with it.
    let host_end = netlink.link_of_index(endpoint.ifindex)?;
    if host_end.is_some_and(|host_end| !veth::is_ours(&host_end)) {
        neighbour::remove_from_bridge(netlink, endpoint.ifindex, endpoint.pod_mac)?;
    }
    Ok(())
}
