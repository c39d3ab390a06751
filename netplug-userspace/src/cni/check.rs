//! CHECK: is all as ADD left it? Compared are `prevResult`, the pod, the host end, the programs, the maps, the leases.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::config::Config;
use super::request::Request;
use super::{Error, chained};
use crate::datapath::Datapath;
use crate::ipam::Store;
use crate::node::Netlink;
use crate::node::namespace::Namespace;

pub(super) fn run(request: &Request) -> Result<(), Error> {
    if request.cni_version.starts_with("0.3") {
        return Err(Error::Version(format!("{}, for CHECK", request.cni_version)));
    }
    let config = Config::read(&request.config)?;
    let Some(previous) = &config.prev_result else {
        return Err(Error::config("prevResult", "is missing; CHECK compares with it"));
    };
    let netlink = Netlink::open()?;
    let found = chained::find(&netlink, request, previous)?;
    let mut wrong = Vec::new();
    let has = pod_addresses(request)?;
    for network in found.networks.iter().filter(|network| !has.contains(network)) {
        wrong.push(format!("{} has not the address {network}", request.ifname));
    }
    if !found.host_end.is_up {
        wrong.push(format!("{} is down", found.host_end.name));
    }
    if let Some(ipam) = &config.ipam {
        if found.bridge.as_ref().is_none_or(|bridge| bridge.name != config.bridge) {
            wrong.push(format!("{} is not a port of {}", found.host_end.name, config.bridge));
        }
        let held = Store::new(&ipam.data_dir(), &request.network)
            .held_by(&request.container, &request.ifname)?;
        let leased = |network: &&IpNetwork| !held.contains(&network.ip());
        wrong.extend(
            found
                .networks
                .iter()
                .filter(leased)
                .map(|network| format!("{} is not leased", network.ip())),
        );
    }
    match Datapath::open()? {
        Some(datapath) => wrong.extend(datapath.check(&found.endpoint(request, &config))?),
        None => wrong.push("the programs are not loaded".into()),
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Drift(wrong)) }
}

fn pod_addresses(request: &Request) -> Result<Vec<IpNetwork>, Error> {
    let pod = Namespace::open(request.netns.as_deref().unwrap_or_else(|| "".as_ref()))?;
    let ifname = request.ifname.clone();
    let found = pod.enter(move |netlink| match netlink.link(&ifname)? {
        Some(link) => netlink.addresses(link.index),
        None => Ok(Vec::new()),
    })?;
    // The kernel and the result write the same address alike.
    Ok(found
        .into_iter()
        .filter(|network| !matches!(network.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()))
        .collect())
}
