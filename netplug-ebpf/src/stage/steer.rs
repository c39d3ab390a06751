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
//! # From adopted ports
//! Nobody knows who is behind them, so that all is asked about, and any packet for one host in a frame for all is steered. What
//! a DHCP server hands to a client is left to the bridge, too: the host would look in vain for an address that nobody has yet.
//! The port's own MAC brings a packet up, as any that the bridge has itself, if the packet is told apart from those for others:
//! for its own only the bridge does that.

use netplug_common::counter::Counter;
use netplug_common::ip::Address;
use netplug_common::maps::port::{ADOPTED, PodPort, unrouted};
use netplug_common::tuple::{Tuple, UDP};

use crate::maps;
use crate::packet::{Header, Packet, ethernet, neighbour};
use crate::route;
use crate::skb::Skb;
use crate::verdict::{Outcome, Verdict};

/// Ports of DHCP servers and clients (RFC 2131 §4.1).
const DHCP: (u16, u16) = (67, 68);

/// Makes the packet one for the gateway, where it is not and should be.
#[inline(always)]
pub fn to_host<V: Header>(skb: Skb, packet: &Packet<V>, port: &PodPort) -> Outcome {
    let Some(macs) = ethernet::macs(skb) else { return Ok(Verdict::Next) };
    let is_adopted = port.flags & ADOPTED != 0;
    let is_for_one = ethernet::is_unicast(&macs.destination)
        || if is_adopted { packet.tuple.destination.is_for_one_host() } else { is_for_pod(packet) };
    if port.bridge == 0
        || !is_for_one
        || (is_adopted && is_handed_out(packet))
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
    if is_adopted {
        skb.is_for_host();
    }
    Ok(Verdict::Next)
}

/// Whether it may be an address that a DHCP server hands out.
#[inline(always)]
fn is_handed_out<V: Header>(packet: &Packet<V>) -> bool {
    let Tuple { source_port, destination_port, protocol, .. } = &packet.tuple;
    *protocol == UDP && (source_port.get(), destination_port.get()) == DHCP
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
