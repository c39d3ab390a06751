//! `netplug unload`: leave the node as it was.

use anyhow::{Context, bail};
use serde_json::json as object;

use super::interface;
use super::output::{Format, json, line};
use crate::datapath::{self, Datapath, Endpoint, Lock};
use crate::node::{self, Netlink, neighbour, veth};

pub fn run(format: Format, force: bool) -> anyhow::Result<()> {
    // From here on no pod is added.
    let lock = Lock::exclusive()?;
    let endpoints = match Datapath::open() {
        Ok(Some(datapath)) => datapath.endpoints()?,
        Ok(None) if !force && is_torn()? => bail!(
            "some pins below {} are lost, so that nobody can tell which pods are served; an ADD, or `netplug load`, makes \
             them anew, `netplug unload --force` removes the rest",
            datapath::directory().display()
        ),
        Ok(None) => Vec::new(),
        // Whatever is pinned there, it is to go.
        Err(datapath::Error::Layout { .. }) if force => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    // Those whose interface vanished without a DEL are nobody's.
    let served = |endpoint: &&Endpoint| datapath::interface_name(endpoint.ifindex).is_ok();
    let names: Vec<_> =
        endpoints.iter().filter(served).map(|endpoint| interface(endpoint.ifindex)).collect();
    if !names.is_empty() && !force {
        bail!(
            "{} pods are served, behind {}; DEL them first, or add --force: until they are added anew they reach only one \
             another, by the bridge, and whatever else the node routes to without netplug's sysctls",
            names.len(),
            names.join(", ")
        );
    }
    let netlink = Netlink::open()?;
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

/// Whether anything is pinned, where not all is.
fn is_torn() -> anyhow::Result<bool> {
    match std::fs::read_dir(datapath::directory()) {
        Ok(mut pins) => Ok(pins.next().is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("cannot list the pins"),
    }
}
