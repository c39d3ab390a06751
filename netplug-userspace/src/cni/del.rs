//! DEL: take a pod's interface away. ADD's mirror image.
//!
//! 1 void its flows, forget the endpoint and detach  2 forget its neighbours  3 remove the veth, if netplug made it
//! 4 give the addresses back, now that nobody answers on them
//!
//! Needs neither `prevResult` nor the namespace, is content with what is gone already, and goes through all steps
//! whatever fails: each failure is reported.

use std::net::IpAddr;

use super::Error;
use super::add::{Names, bridge_of, remove_veth};
use super::config::Config;
use super::request::Request;
use crate::datapath::{Datapath, Owner};
use crate::ipam::{Store, store};
use crate::node::{Netlink, neighbour};

pub(super) fn run(request: &Request) -> Result<(), Error> {
    // A configuration that ADD would refuse still has to be taken down: only where leases are kept matters.
    let config = Config::read(&request.config).ok();
    let owner = Owner::of(&request.network, &request.container, &request.ifname);
    let mut failures = Vec::new();
    let mut step = |result: Result<(), Error>| {
        if let Err(error) = result {
            failures.push(error.to_json("")["msg"].as_str().unwrap_or_default().to_owned());
        }
    };
    // Looked up first: nothing else tells once the endpoint is forgotten.
    let endpoints = known(owner);
    step(endpoints.as_ref().map(|_| ()).map_err(|_| Error::config("maps", "cannot be read")));
    step(forget(owner));
    for (ifindex, addresses) in endpoints.unwrap_or_default() {
        step(forget_neighbours(ifindex, &addresses));
    }
    let is_chained = config.as_ref().is_some_and(|config| config.ipam.is_none());
    if !is_chained {
        step(remove_veth(&Names::of(request).host_end));
        let data_dir = config
            .and_then(|config| config.ipam.map(|ipam| ipam.data_dir()))
            .unwrap_or_else(|| store::DATA_DIR.into());
        let leases = Store::new(&data_dir, &request.network);
        step(leases.release(&request.container, &request.ifname).map_err(Error::from));
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::Several(failures)) }
}

fn known(owner: Owner) -> Result<Vec<(u32, Vec<IpAddr>)>, Error> {
    let Some(datapath) = Datapath::open()? else { return Ok(Vec::new()) };
    let endpoints = datapath.endpoints()?.into_iter().filter(|endpoint| endpoint.owner == owner);
    Ok(endpoints.map(|endpoint| (endpoint.ifindex, endpoint.addresses)).collect())
}

fn forget(owner: Owner) -> Result<(), Error> {
    if let Some(datapath) = Datapath::open()? {
        datapath.unregister(owner)?;
    }
    Ok(())
}

fn forget_neighbours(ifindex: u32, addresses: &[IpAddr]) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    let Some(host_end) = netlink.link_of_index(ifindex)? else { return Ok(()) };
    match bridge_of(&netlink, &host_end)? {
        Some(bridge) => Ok(neighbour::remove(&netlink, bridge.index, addresses)?),
        None => Ok(()),
    }
}
