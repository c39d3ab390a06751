//! CHECK: is all as ADD left it? Compared are `prevResult`, the pod's addresses and routes, the host end, FDB and
//! neighbours, the leases, the programs and the maps.

use ipnetwork::IpNetwork;

use super::chained::Found;
use super::config::Config;
use super::request::Request;
use super::{Error, chained, host_ports};
use crate::datapath::Datapath;
use crate::ipam::Store;
use crate::node::{Netlink, mac_text, neighbour};

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
    let (addresses, routes) = of_pod(request)?;
    for network in found.networks.iter().filter(|network| !addresses.contains(network)) {
        wrong.push(format!("{} has not the address {network}", request.ifname));
    }
    for route in previous["routes"].as_array().into_iter().flatten() {
        let to = route["dst"].as_str().and_then(|to| to.parse().ok());
        if to.is_none_or(|to| !routes.contains(&to)) {
            wrong.push(format!("{} has not the route to {}", request.ifname, route["dst"]));
        }
    }
    wrong.extend(unknown_to_node(&netlink, &found)?);
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
        Some(datapath) => {
            let endpoint = found.endpoint(request, &config);
            wrong.extend(datapath.check(&endpoint)?);
            let open = datapath.host_ports()?;
            let wanted = host_ports::of_pod(&config.host_ports()?, &endpoint.addresses)?;
            if !wanted.is_empty() && !datapath.serves_host_ports()? {
                wrong.push("HostPorts are not served".into());
            }
            for port in wanted.iter().filter(|port| !open.contains(&(endpoint.owner, **port))) {
                wrong.push(format!("HostPort {port} is not open"));
            }
        }
        None => wrong.push("the programs are not loaded".into()),
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Drift(wrong)) }
}

/// The addresses and the routes' destinations that the pod has.
fn of_pod(request: &Request) -> Result<(Vec<IpNetwork>, Vec<IpNetwork>), Error> {
    let pod = request.pod()?;
    Ok(pod.enter(|netlink| match netlink.link(&request.ifname)? {
        Some(link) => Ok((netlink.addresses(link.index)?, netlink.destinations(link.index)?)),
        None => Ok((Vec::new(), Vec::new())),
    })?)
}

/// What bridge and host should know of the pod, and do not.
fn unknown_to_node(netlink: &Netlink, found: &Found) -> Result<Vec<String>, Error> {
    let Some(bridge) = &found.bridge else { return Ok(Vec::new()) };
    let mut wrong = Vec::new();
    if !neighbour::on_bridges(netlink)?.contains(&(found.host_end.index, found.pod_mac)) {
        let mac = mac_text(found.pod_mac);
        wrong.push(format!("{} has no FDB entry for {mac}", found.host_end.name));
    }
    let known = neighbour::permanent(netlink)?;
    for address in found.networks.iter().map(IpNetwork::ip) {
        if !known.contains(&(bridge.index, address, found.pod_mac)) {
            wrong.push(format!("{} has no permanent neighbour {address}", bridge.name));
        }
    }
    Ok(wrong)
}
