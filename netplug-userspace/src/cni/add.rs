//! ADD: give a pod its interface.
//!
//! Alone: 1 lease addresses  2 make the bridge, if it is missing  3 make the veth, its other end in the pod
//! 4 set up the pod's end  5 plug the host's end in  6 make pod and host known to each other
//! 7 set the node up and load the programs, if that is due  8 register the endpoint  9 answer
//!
//! Behind another plugin, which made the interface: `chained`.
//! Whatever fails, the steps before it are undone in reverse.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::config::{Config, Ipam};
use super::request::Request;
use super::rollback::Rollback;
use super::{Error, chained, reply, settings};
use crate::datapath::{Endpoint, Owner};
use crate::ipam::{Lease, Store};
use crate::node::link::Link;
use crate::node::namespace::Namespace;
use crate::node::{Mac, Netlink, bridge, mtu, neighbour, sysctl, veth};

/// Runs ADD; the result goes to stdout.
pub(super) fn run(request: &Request) -> Result<Value, Error> {
    let config = Config::read(&request.config)?;
    if let Some(previous) = &config.prev_result {
        return chained::add(request, &config, previous);
    }
    let Some(ipam) = &config.ipam else {
        return Err(Error::config(
            "ipam",
            "is missing, and there is no prevResult of a plugin before netplug",
        ));
    };
    let mut rollback = Rollback::default();
    match alone(request, &config, ipam, &mut rollback) {
        Ok(reply) => {
            rollback.commit();
            Ok(reply)
        }
        Err(error) => Err(rollback.run(error)),
    }
}

fn alone<'a>(
    request: &'a Request,
    config: &Config,
    ipam: &Ipam,
    rollback: &mut Rollback<'a>,
) -> Result<Value, Error> {
    let pod = Namespace::open(request.netns.as_deref().unwrap_or_else(|| "".as_ref()))?;
    let sets = ipam.sets()?;
    let netlink = Netlink::open()?;

    let store = Store::new(&ipam.data_dir(), &request.network);
    let leases = store.lease(&sets, &request.container, &request.ifname)?;
    rollback.push(move || Ok(store.release(&request.container, &request.ifname)?));

    let mtu = config.mtu.map_or_else(
        || Ok::<_, Error>(mtu::of_pods(&netlink.links()?, config.mtu_overhead)),
        |mtu| Ok(mtu.saturating_sub(config.mtu_overhead)),
    )?;
    let gateways: Vec<_> =
        if config.is_gateway { leases.iter().filter_map(gateway).collect() } else { Vec::new() };
    let (bridge, is_new) =
        bridge::ensure(&netlink, &config.bridge, &request.network, mtu, &gateways)?;

    let names = Names::of(request);
    let pair = veth::Pair {
        host_name: &names.host_end,
        host_mac: names.host_mac,
        pod_name: &request.ifname,
        pod_mac: names.pod_mac,
        mtu,
    };
    if !veth::add(&netlink, &pair, &pod)? {
        return Err(Error::Exists {
            container: request.container.clone(),
            ifname: request.ifname.clone(),
        });
    }
    let host_name = names.host_end.clone();
    rollback.push(move || remove_veth(&host_name));
    let host_end = netlink.link(&names.host_end)?.ok_or_else(|| gone(&names.host_end))?;

    let routes = routes(config, ipam, &leases);
    pod.enter(|netlink| set_up_pod(netlink, &request.ifname, &leases, &routes, bridge.mac))?;

    veth::plug(
        &netlink,
        host_end.index,
        bridge.index,
        &names.alias,
        &host_end.name,
        config.hairpin_mode,
    )?;
    neighbour::add_to_bridge(&netlink, &host_end, names.pod_mac)?;
    let addresses: Vec<IpAddr> = leases.iter().map(|lease| lease.address.ip()).collect();
    let (index, known) = (bridge.index, addresses.clone());
    rollback.push(move || Ok(neighbour::remove(&Netlink::open()?, index, &known)?));
    for address in &addresses {
        neighbour::add(&netlink, &bridge, *address, names.pod_mac)?;
    }

    let networks: Vec<_> =
        sets.iter().flat_map(|set| &set.ranges).map(|range| range.subnet).collect();
    let datapath =
        settings::prepare_node(&netlink, config, &networks, Some((&bridge.name, is_new)))?;
    let owner = Owner::of(&request.network, &request.container, &request.ifname);
    datapath.register(&Endpoint {
        ifindex: host_end.index,
        owner,
        bridge: Some(bridge.index),
        gateway_mac: bridge.mac,
        pod_mac: names.pod_mac,
        addresses,
        source_guard: config.source_guard,
        attach: settings::attach(config),
    })?;

    let made = reply::Made {
        bridge: (&bridge.name, bridge.mac),
        host_end: (&host_end.name, host_end.mac),
        pod_mac: names.pod_mac,
        leases: &leases,
        routes: &routes,
    };
    Ok(reply::result(request, config.dns.as_ref(), &made))
}

/// What an endpoint's parts are called: all follows from network, container and interface, so that DEL finds it.
pub(super) struct Names {
    /// Name of the host end.
    pub(super) host_end: String,
    /// Its alias, which people read.
    pub(super) alias: String,
    host_mac: Mac,
    pod_mac: Mac,
}

impl Names {
    pub(super) fn of(request: &Request) -> Self {
        let Owner(digest) = Owner::of(&request.network, &request.container, &request.ifname);
        let [a, b, c, d, e, f, g, h] = digest.to_be_bytes();
        Self {
            host_end: format!("np{:013x}", digest & 0x000f_ffff_ffff_ffff),
            alias: format!("netplug {}/{}/{}", request.network, request.container, request.ifname),
            // Locally administered, and the two ends differ in the third octet's lowest bit.
            host_mac: [0x02, b ^ a, c | 1, d, e ^ g, f ^ h],
            pod_mac: [0x02, b ^ a, c & !1, d, e ^ g, f ^ h],
        }
    }
}

pub(super) fn gone(name: &str) -> Error {
    crate::node::Error::NoInterface { name: name.into(), place: String::new() }.into()
}

fn gateway(lease: &Lease) -> Option<IpNetwork> {
    IpNetwork::new(lease.gateway, lease.address.prefix()).ok()
}

/// The routes of the configuration; with `isDefaultGateway`, or where none are named, a default route of each family.
fn routes(config: &Config, ipam: &Ipam, leases: &[Lease]) -> Vec<(IpNetwork, Option<IpAddr>)> {
    let mut routes: Vec<_> = ipam.routes.iter().map(|route| (route.dst, route.gw)).collect();
    for lease in leases {
        let default = match lease.address {
            IpNetwork::V4(_) => "0.0.0.0/0",
            IpNetwork::V6(_) => "::/0",
        };
        let Ok(default) = default.parse::<IpNetwork>() else { continue };
        let is_named = routes.iter().any(|(to, _)| *to == default);
        if (config.is_default_gateway || ipam.routes.is_empty()) && !is_named {
            routes.push((default, Some(lease.gateway)));
        }
    }
    routes
}

/// In the pod's namespace: addresses that are usable at once, the interface up, routes, and the gateway's MAC.
fn set_up_pod(
    netlink: &Netlink,
    ifname: &str,
    leases: &[Lease],
    routes: &[(IpNetwork, Option<IpAddr>)],
    gateway_mac: Mac,
) -> Result<(), crate::node::Error> {
    let link = netlink.link(ifname)?.ok_or_else(|| crate::node::Error::NoInterface {
        name: ifname.into(),
        place: " in the pod".into(),
    })?;
    let accept_dad = format!("net/ipv6/conf/{ifname}/accept_dad");
    if leases.iter().any(|lease| lease.address.is_ipv6())
        && sysctl::get(&accept_dad)?.is_some_and(|dad| dad != "0")
    {
        sysctl::write(&accept_dad, "0")?;
    }
    for lease in leases {
        netlink.add_address(&link, lease.address)?;
    }
    let up = rtnetlink::LinkUnspec::new_with_index(link.index).up().build();
    netlink.set(up, ifname)?;
    for lease in leases {
        neighbour::add(netlink, &link, lease.gateway, gateway_mac)?;
    }
    for (to, gateway) in routes {
        let of_family = |lease: &&Lease| lease.address.is_ipv4() == to.is_ipv4();
        let gateway = gateway.or_else(|| leases.iter().find(of_family).map(|lease| lease.gateway));
        netlink.add_route(&link, *to, gateway)?;
    }
    Ok(())
}

/// Removes the veth by its host end; the other end goes with it. Content if it is gone.
pub(super) fn remove_veth(host_end: &str) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    match netlink.link(host_end)? {
        Some(link) => Ok(netlink.remove(&link)?),
        None => Ok(()),
    }
}

/// Whether an interface is a port of a bridge, and of which.
pub(super) fn bridge_of(netlink: &Netlink, host_end: &Link) -> Result<Option<Link>, Error> {
    let Some(master) = host_end.master else { return Ok(None) };
    Ok(netlink.link_of_index(master)?.filter(Link::is_bridge))
}
