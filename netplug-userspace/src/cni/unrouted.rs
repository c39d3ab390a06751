//! Pods whose addresses the host does not route by their bridge, which has not their gateway: steered to the host, what they
//! send one another would leave by another way. The programs ask for each packet that visits, and leave it to the bridge until
//! it is routed; a later ADD that finds it so spares them that.

use std::net::IpAddr;

use super::Error;
use crate::datapath::Datapath;
use crate::node::Netlink;
use crate::node::link::Link;
use crate::warning::warn;

/// Those of a pod's addresses; warns of them. The node forwards by now.
pub(super) fn find(
    netlink: &Netlink,
    bridge: &Link,
    addresses: &[IpAddr],
) -> Result<Vec<IpAddr>, Error> {
    let unrouted = among(netlink, bridge, addresses)?;
    if !unrouted.is_empty() {
        let texts: Vec<_> = unrouted.iter().map(ToString::to_string).collect();
        warn(format_args!(
            "the host does not route {} by {}: what goes from pod to pod there is left to the bridge, and \
             the host sees no service of theirs; set isGateway, or give {} an address of that network",
            texts.join(", "),
            bridge.name,
            bridge.name
        ));
    }
    Ok(unrouted)
}

/// Has the host see what pods on a bridge send, where it routes their addresses by now.
pub(super) fn heal(netlink: &Netlink, datapath: &Datapath, bridge: &Link) -> Result<(), Error> {
    for mut endpoint in datapath.unrouted(bridge.index)? {
        let unrouted = among(netlink, bridge, &endpoint.unrouted)?;
        if unrouted != endpoint.unrouted {
            endpoint.unrouted = unrouted;
            datapath.set_unrouted(&endpoint)?;
        }
    }
    Ok(())
}

/// Asks anew for all pods on a bridge, one of whose addresses has gone again.
pub(super) fn judge_anew(bridge: &str) -> Result<(), Error> {
    let netlink = Netlink::open()?;
    let Some(bridge) = netlink.link(bridge)? else { return Ok(()) };
    let Some(datapath) = Datapath::open()? else { return Ok(()) };
    for mut endpoint in datapath.endpoints()? {
        if endpoint.bridge == Some(bridge.index) {
            endpoint.unrouted = among(&netlink, &bridge, &endpoint.addresses)?;
            datapath.set_unrouted(&endpoint)?;
        }
    }
    Ok(())
}

fn among(netlink: &Netlink, bridge: &Link, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
    // A route of the bridge's own may wait for it to run.
    let networks = netlink.addresses(bridge.index)?;
    let mut unrouted = Vec::new();
    for address in addresses {
        let is_of_bridge = networks.iter().any(|network| network.contains(*address));
        if !is_of_bridge && !netlink.is_routed_back(bridge, *address)? {
            unrouted.push(*address);
        }
    }
    Ok(unrouted)
}
