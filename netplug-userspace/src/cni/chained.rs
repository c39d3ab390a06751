//! ADD and CHECK behind another plugin (`bridge`, `ptp`, …): interface, addresses and gateway are in `prevResult`; netplug
//! adds the datapath and gives the result on as it came.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::add::{bridge_of, make_known};
use super::config::Config;
use super::request::Request;
use super::rollback::Rollback;
use super::{Error, del, host_ports, settings, tell, unrouted};
use crate::datapath::{Datapath, Endpoint, Owner, PodId};
use crate::node::link::Link;
use crate::node::{Mac, Netlink, bridge, neighbour, veth};

/// What a pod's interface was found to be.
pub(super) struct Found {
    pub(super) host_end: Link,
    pub(super) bridge: Option<Link>,
    pub(super) pod_mac: Mac,
    pub(super) networks: Vec<IpNetwork>,
}

impl Found {
    fn addresses(&self) -> Vec<IpAddr> {
        self.networks.iter().map(IpNetwork::ip).collect()
    }

    /// The endpoint that netplug makes of it.
    pub(super) fn endpoint(&self, request: &Request, config: &Config) -> Endpoint {
        Endpoint {
            ifindex: self.host_end.index,
            owner: Owner::of(&request.network, &request.container, &request.ifname),
            pod: PodId::of(&request.container),
            bridge: self.bridge.as_ref().map(|bridge| bridge.index),
            // Where there is no bridge, the host end itself is the pod's gateway.
            gateway_mac: self.bridge.as_ref().map_or(self.host_end.mac, |bridge| bridge.mac),
            pod_mac: self.pod_mac,
            addresses: self.addresses(),
            unrouted: Vec::new(),
            source_guard: config.source_guard,
            attach: settings::attach(config),
        }
    }
}

pub(super) fn add(request: &Request, config: &Config, previous: &Value) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    let mut found = find(&netlink, request, previous)?;
    // Kept until what failed is undone: nobody unloads in between.
    let datapath = settings::load(config)?;
    let mut rollback = Rollback::default();
    let joined = join(&netlink, &datapath, request, config, &mut found, &mut rollback);
    match joined.and_then(|()| tell(previous)) {
        Ok(()) => {
            rollback.commit();
            Ok(())
        }
        Err(error) => Err(rollback.run(error)),
    }
}

fn join(
    netlink: &Netlink,
    datapath: &Datapath,
    request: &Request,
    config: &Config,
    found: &mut Found,
    rollback: &mut Rollback<'_>,
) -> Result<(), Error> {
    let owner = Owner::of(&request.network, &request.container, &request.ifname);
    // One that was killed before it attached begins anew.
    if datapath.has(found.host_end.index, owner)? && datapath.is_attached(found.host_end.index)? {
        let (container, ifname) = (request.container.clone(), request.ifname.clone());
        return Err(Error::Exists { container, ifname });
    }
    let bridge = found.bridge.as_ref().map(|bridge| bridge.name.as_str());
    settings::check_uplinks(netlink, config, bridge)?;
    let ports = host_ports::of_pod(&config.host_ports()?, &found.addresses())?;
    if let Some(bridge) = &mut found.bridge {
        *bridge = bridge::fix_mac(netlink, bridge)?;
        neighbour::add_to_bridge(netlink, bridge, &found.host_end, found.pod_mac)?;
        let (port, mac) = (found.host_end.index, found.pod_mac);
        rollback.push(move || Ok(neighbour::remove_from_bridge(&Netlink::open()?, port, mac)?));
    }
    // As the chain's first plugin gave them: where that routes each pod by itself, one address.
    let networks: Vec<_> = found
        .networks
        .iter()
        .filter_map(|network| IpNetwork::new(network.network(), network.prefix()).ok())
        .collect();
    let network = settings::Network {
        name: &request.network,
        pods: &networks,
        bridge: found.bridge.as_ref(),
        routed: found.bridge.is_none().then_some(&found.host_end),
        gateways: &[],
    };
    settings::forward(&network)?;
    let mut endpoint = found.endpoint(request, config);
    if let Some(bridge) = &found.bridge {
        endpoint.unrouted = unrouted::find(netlink, bridge, &endpoint.addresses)?;
    }
    datapath.register(&endpoint)?;
    // The interface stays on, if it was before: it is the other plugin's, which the runtime asks to take it away.
    rollback.push(move || del::forget(owner));
    if !found.host_end.is_up {
        // A DEL had switched it off, and the other plugin's has not come.
        let host_end = found.host_end.clone();
        rollback.push(move || Ok(veth::switch_off(&Netlink::open()?, &host_end)?));
        veth::switch_on(netlink, &found.host_end)?;
        veth::await_running(netlink, &found.host_end.name)?;
    }
    if let Some(bridge) = &found.bridge {
        unrouted::heal(netlink, datapath, bridge)?;
        make_known(netlink, bridge, &endpoint, rollback)?;
    }
    host_ports::open(netlink, datapath, owner, &ports)?;
    settings::apply(netlink, datapath, config, &network)
}

/// Finds the interface that `previous` speaks of.
pub(super) fn find(netlink: &Netlink, request: &Request, previous: &Value) -> Result<Found, Error> {
    let interfaces =
        previous.get("interfaces").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let is_pods = |interface: &&Value| {
        let text = |key| interface.get(key).and_then(Value::as_str).unwrap_or_default();
        text("name") == request.ifname && !text("sandbox").is_empty()
    };
    let Some(at) = interfaces.iter().position(|interface| is_pods(&interface)) else {
        return Err(Error::config(
            "prevResult.interfaces",
            format!("has no {} in the pod", request.ifname),
        ));
    };
    let mut networks = Vec::new();
    for ip in previous.get("ips").and_then(Value::as_array).into_iter().flatten() {
        let index = ip.get("interface").and_then(Value::as_u64);
        if index.is_none_or(|index| usize::try_from(index) == Ok(at)) {
            let address = ip.get("address").and_then(Value::as_str).unwrap_or_default();
            networks.push(address.parse().map_err(|_| {
                Error::config(
                    "prevResult.ips",
                    format!("{address:?} is not an address with a prefix"),
                )
            })?);
        }
    }
    if networks.is_empty() {
        return Err(Error::config(
            "prevResult.ips",
            format!("has no address of {}", request.ifname),
        ));
    }
    let pod = request.pod()?;
    let ifname = request.ifname.clone();
    let pod_end = pod.enter(move |netlink| {
        netlink.link(&ifname)?.ok_or_else(|| crate::node::Error::NoInterface {
            name: ifname.clone(),
            place: " in the pod".into(),
        })
    })?;
    let no_veth = || {
        Error::config(
            "prevResult.interfaces",
            format!("{} is not one end of a veth whose other end is on the node", request.ifname),
        )
    };
    // A macvlan too has a link: the node's own interface. Only a veth's ends name each other.
    let peer = pod_end.peer.filter(|_| pod_end.is_veth()).ok_or_else(no_veth)?;
    let host_end = netlink
        .link_of_index(peer)?
        .filter(|link| link.is_veth() && link.peer == Some(pod_end.index))
        .ok_or_else(no_veth)?;
    let bridge = bridge_of(netlink, &host_end)?;
    Ok(Found { host_end, bridge, pod_mac: pod_end.mac, networks })
}
