//! ADD: give a pod its interface.
//!
//! Alone: 1 load the programs, if that is due, and lease addresses  2 make the bridge, if it is missing
//! 3 make the veth, its other end in the pod  4 set up the pod's end  5 plug the host's end in  6 have the node forward
//! 7 register the endpoint  8 switch the host's end on  9 tell the host the pod's MAC  10 open its HostPorts
//! 11 wait until packets pass  12 have the network's settings count for the node  13 answer
//!
//! Behind another plugin, which made the interface: `chained`.
//! Whatever fails, the steps before it are undone in reverse.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::config::{Config, Ipam};
use super::request::Request;
use super::rollback::Rollback;
use super::{
    Error, chained, del, host_ports, pod_end, reply, resolv_conf, settings, tell, unrouted,
};
use crate::datapath::{Datapath, Endpoint, Owner, PodId};
use crate::ipam::{Lease, RangeSet, Store};
use crate::node::link::{self, Link};
use crate::node::{Mac, Netlink, bridge, mtu, neighbour, sysctl, veth};
use crate::warning::warn;

/// Runs ADD; the result goes to stdout.
pub(super) fn run(request: &Request) -> Result<(), Error> {
    let config = Config::read(&request.config)?;
    if let Some(previous) = &config.prev_result {
        if config.ipam.is_some() {
            return Err(Error::config(
                "ipam",
                "is named, and so is prevResult: behind another plugin, which gave the addresses, take ipam out",
            ));
        }
        return chained::add(request, &config, previous);
    }
    let Some(ipam) = &config.ipam else {
        return Err(Error::config(
            "ipam",
            "is missing, and there is no prevResult of a plugin before netplug",
        ));
    };
    // Kept until what failed is undone: nobody unloads in between.
    let mut datapath = None;
    let mut rollback = Rollback::default();
    let made = alone(request, &config, ipam, &mut datapath, &mut rollback);
    match made.and_then(|reply| tell(&reply)) {
        Ok(()) => {
            rollback.commit();
            Ok(())
        }
        Err(error) => Err(rollback.run(error)),
    }
}

fn alone<'a>(
    request: &'a Request,
    config: &Config,
    ipam: &Ipam,
    datapath: &mut Option<Datapath>,
    rollback: &mut Rollback<'a>,
) -> Result<Value, Error> {
    let pod = request.pod()?;
    let sets = ipam.sets()?;
    let dns = match (&config.dns, &ipam.resolv_conf) {
        (Some(dns), _) if resolv_conf::is_said(dns) => Some(dns.clone()),
        (_, Some(path)) => Some(resolv_conf::read(path)?),
        (dns, None) => dns.clone(),
    };
    let mut wanted = config.wanted_addresses()?;
    wanted.extend(request.address.filter(|address| !wanted.contains(address)));
    let names = Names::of(request);
    let pod_mac = config.wanted_mac()?.or(request.mac).unwrap_or(names.pod_mac);
    let netlink = Netlink::open()?;
    let mtu = mtu_of_pods(&netlink, config, &sets)?;
    settings::check_uplinks(&netlink, config, Some(&config.bridge))?;
    // Before anything is changed that unloading would change back.
    let datapath = datapath.insert(settings::load(config)?);

    let store = Store::new(&ipam.data_dir(), &request.network);
    let leases = store.lease(&sets, &wanted, &request.container, &request.ifname)?;
    rollback.push(move || Ok(store.release(&request.container, &request.ifname)?));

    let addresses: Vec<IpAddr> = leases.iter().map(|lease| lease.address.ip()).collect();
    let ports = host_ports::of_pod(&config.host_ports()?, &addresses)?;
    let gateways: Vec<_> =
        if config.is_gateway { leases.iter().filter_map(gateway).collect() } else { Vec::new() };
    let wanted = bridge::Wanted {
        name: &config.bridge,
        network: &request.network,
        mtu,
        gateways: &gateways,
        force_address: config.force_address,
    };
    let kept = bridge::Kept::shared()?;
    let mut given = bridge::Given::default();
    let ensured = bridge::ensure(&netlink, &wanted, &mut given);
    // Also what was made half way.
    let name = config.bridge.clone();
    rollback.push(move || Ok(bridge::remove_unused(&Netlink::open()?, &name)?));
    let name = config.bridge.clone();
    rollback.push(move || {
        // Others may have been judged by what is gone.
        if given.take_back(&Netlink::open()?)? { unrouted::judge_anew(&name) } else { Ok(()) }
    });
    let bridge = ensured?;

    let pair = veth::Pair {
        host_name: &names.host_end,
        host_mac: names.host_mac,
        pod_name: &request.ifname,
        pod_mac,
        mtu,
    };
    if !veth::add(&netlink, &pair, &pod)? {
        return Err(taken(&netlink, &names, request)?);
    }
    let host_name = names.host_end.clone();
    rollback.hold(move || remove_veth(&host_name).map(drop));
    let host_end = netlink.link(&names.host_end)?.ok_or_else(|| gone(&names.host_end))?;

    let routes = pod_end::routes(config, ipam, &leases);
    // Where the gateway is not the node, its MAC is not known.
    let gateway_mac = config.is_gateway.then_some(bridge.mac);
    let routes = pod.enter(|netlink| {
        pod_end::set_up(netlink, &request.ifname, &leases, &routes, gateway_mac)
    })?;

    // A port's own stack hears nothing of the pod; should it leave the bridge, it must not believe it either.
    if let Err(error) =
        sysctl::of_device(&format!("net/ipv6/conf/{}/accept_ra", host_end.name), "0")
    {
        warn(error);
    }
    veth::plug(
        &netlink,
        host_end.index,
        bridge.index,
        &names.alias,
        &host_end.name,
        config.hairpin_mode,
    )?;
    drop(kept);
    neighbour::add_to_bridge(&netlink, &bridge, &host_end, pod_mac)?;

    let networks: Vec<_> =
        sets.iter().flat_map(|set| &set.ranges).map(|range| range.subnet).collect();
    let network = settings::Network {
        name: &request.network,
        pods: &networks,
        bridge: Some(&bridge),
        routed: None,
        gateways: &gateways,
    };
    settings::forward(&network)?;
    let owner = Owner::of(&request.network, &request.container, &request.ifname);
    let endpoint = Endpoint {
        ifindex: host_end.index,
        owner,
        pod: PodId::of(&request.container),
        bridge: Some(bridge.index),
        gateway_mac: bridge.mac,
        pod_mac,
        unrouted: unrouted::find(&netlink, &bridge, &addresses)?,
        addresses,
        source_guard: config.source_guard,
        attach: settings::attach(config),
    };
    datapath.register(&endpoint)?;
    rollback.push(move || del::forget(owner));
    // Neither on before its programs are, nor when they are taken off.
    let silenced = host_end.clone();
    rollback.push(move || Ok(veth::switch_off(&Netlink::open()?, &silenced)?));
    veth::switch_on(&netlink, &host_end)?;
    unrouted::heal(&netlink, datapath, &bridge)?;
    make_known(&netlink, &bridge, &endpoint, rollback)?;
    host_ports::open(&netlink, datapath, owner, &ports)?;
    veth::await_running(&netlink, &host_end.name)?;
    pod.enter(|netlink| veth::await_running(netlink, &request.ifname))?;
    settings::apply(&netlink, datapath, config, &network)?;
    bridge::keep(&netlink, &bridge)?;

    let made = reply::Made {
        bridge: (&bridge.name, bridge.mac),
        host_end: (&host_end.name, host_end.mac),
        pod_mac,
        leases: &leases,
        routes: &routes,
    };
    Ok(reply::result(request, dns.as_ref(), &made))
}

/// Tells the host the pod's MAC, for good.
pub(super) fn make_known(
    netlink: &Netlink,
    bridge: &Link,
    endpoint: &Endpoint,
    rollback: &mut Rollback<'_>,
) -> Result<(), Error> {
    let (index, known) = (bridge.index, endpoint.addresses.clone());
    rollback.push(move || Ok(neighbour::remove(&Netlink::open()?, index, &known)?));
    for address in &endpoint.addresses {
        neighbour::add(netlink, bridge, *address, endpoint.pod_mac)?;
    }
    Ok(())
}

/// Who has a name that the veth wanted: an earlier ADD, or somebody else in the pod.
fn taken(netlink: &Netlink, names: &Names, request: &Request) -> Result<Error, Error> {
    let ifname = request.ifname.clone();
    Ok(match netlink.link(&names.host_end)? {
        Some(_) => Error::Exists { container: request.container.clone(), ifname },
        None => Error::NameTaken { ifname },
    })
}

/// The MTU of pods: the configured one, or what the node's interfaces allow, less the overhead.
fn mtu_of_pods(netlink: &Netlink, config: &Config, sets: &[RangeSet]) -> Result<u32, Error> {
    let mtu = match config.mtu() {
        Some(mtu) => mtu.saturating_sub(config.mtu_overhead),
        None => mtu::of_pods(&netlink.links()?, config.mtu_overhead),
    };
    // RFC 8200 §5: a link of less carries no IPv6.
    let least = if sets.iter().any(RangeSet::is_ipv6) { 1280 } else { mtu::LEAST };
    if (least..=MTU_MOST).contains(&mtu) {
        return Ok(mtu);
    }
    let overhead = config.mtu_overhead;
    Err(Error::config(
        "mtu",
        format!("{mtu}, after the mtuOverhead of {overhead}, is not from {least} to {MTU_MOST}"),
    ))
}

/// The most that a veth takes.
const MTU_MOST: u32 = 65535;

/// What an endpoint's parts are called: all follows from network, container and interface, so that DEL finds it.
pub(super) struct Names {
    /// Name of the host end.
    pub(super) host_end: String,
    /// Its alias, which people read.
    pub(super) alias: String,
    host_mac: Mac,
    pub(super) pod_mac: Mac,
}

impl Names {
    pub(super) fn of(request: &Request) -> Self {
        let Owner(digest) = Owner::of(&request.network, &request.container, &request.ifname);
        let [a, b, c, d, e, f, g, h] = digest.to_be_bytes();
        Self {
            host_end: format!("np{:013x}", digest & 0x000f_ffff_ffff_ffff),
            alias: link::alias(
                &format!("netplug {}/{}/{}", request.network, request.container, request.ifname),
                "",
            ),
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

/// Removes the veth by its host end; the other end goes with it. `false`: it was gone.
pub(super) fn remove_veth(host_end: &str) -> Result<bool, Error> {
    let netlink = Netlink::open()?;
    match netlink.link(host_end)? {
        Some(link) => Ok(netlink.remove(&link).map(|()| true)?),
        None => Ok(false),
    }
}

/// Whether an interface is a port of a bridge, and of which.
pub(super) fn bridge_of(netlink: &Netlink, host_end: &Link) -> Result<Option<Link>, Error> {
    let Some(master) = host_end.master else { return Ok(None) };
    Ok(netlink.link_of_index(master)?.filter(Link::is_bridge))
}
