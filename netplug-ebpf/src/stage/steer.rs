//! Bring a pod's packet before the host.
//!
//! # What is steered
//! IP packets whose destination MAC is another pod's get the gateway's instead: the bridge hands them up, the
//! host's L3 sees them, and conntrack undoes there what kube-proxy's DNAT did. So do packets for one pod in a frame for
//! all: pods would take them, and no rule of the host's have seen them.
//! # What is left to the bridge
//! Other broadcast and multicast frames, neighbour discovery, and whatever goes to a link-local address: routing
//! does not carry them. What the host does not route by the pod's bridge, where the bridge had no such address as the pod came:
//! it would leave by another way.

use netplug_common::counter::Counter;
use netplug_common::ip::Address;
use netplug_common::maps::port::{PodPort, unrouted};

use crate::maps;
use crate::packet::{Header, Packet, ethernet, neighbour};
use crate::route;
use crate::skb::Skb;
use crate::verdict::{Outcome, Verdict};

/// Makes the packet one for the gateway, where it is not and should be.
#[inline(always)]
pub fn to_host<V: Header>(skb: Skb, packet: &Packet<V>, port: &PodPort) -> Outcome {
    let Some(macs) = ethernet::macs(skb) else { return Ok(Verdict::Next) };
    if port.bridge == 0
        || !(ethernet::is_unicast(&macs.destination) || is_for_pod(packet))
        || ethernet::same(&macs.destination, &port.gateway_mac)
        || packet.tuple.destination.is_link_local()
        || neighbour::is_discovery(packet)
    {
        return Ok(Verdict::Next);
    }
    if port.flags & unrouted::<V>() != 0 && !is_routed_back(skb, packet, port) {
        return Ok(Verdict::Next);
    }
    ethernet::set_destination(skb, &port.gateway_mac).map_err(|()| Counter::RewriteFailed)?;
    Ok(Verdict::Next)
}

/// Out of line: few ports are asked about.
#[inline(never)]
fn is_routed_back<V: Header>(skb: Skb, packet: &Packet<V>, port: &PodPort) -> bool {
    let Some(scratch) = V::scratch() else { return false };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let lookup = unsafe { &mut (*scratch).lookup };
    route::leads_by(skb, &packet.tuple, port.bridge, lookup)
}

#[inline(always)]
fn is_for_pod<V: Header>(packet: &Packet<V>) -> bool {
    maps::endpoint::<V>(&packet.tuple.destination).is_some()
}
