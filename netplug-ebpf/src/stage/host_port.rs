//! Ports of the node that lead to pods.
//!
//! # In
//! A call of a HostPort, from outside or from a pod, becomes one of its pod before the host sees it. The caller stays who it is.
//! # Out
//! The pod's answer becomes the node's as it leaves, for the outside or another pod.
//! # To itself
//! A pod that calls its own HostPort is called by the node: it would not answer itself.
//! # Dropped
//! A call by the very ports of another one that the pod could not tell it from; what there is no room for; what may answer a
//! connection of a pod's that left by the port before it was a HostPort, while the search for it pauses.

use netplug_common::counter::Counter;

use crate::apart::Apart;
use crate::mapping::{self, Clock};
use crate::packet::rewrite::become_tuple;
use crate::packet::{Kind, Packet};
use crate::skb::Skb;
use crate::{maps, report};

/// Addresses a call to its pod.
#[inline(always)]
pub fn inbound<V: Apart>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let (Some(config), Some(scratch)) = (maps::config(), V::scratch()) else { return Ok(()) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let scratch = unsafe { &mut *scratch };
    if packet.kind != Kind::Plain && packet.kind != Kind::Optioned {
        return Ok(());
    }
    if mapping::called(skb, packet, config, &Clock::inward(config), scratch)? {
        become_tuple(skb, packet, &scratch.tuple)?;
        report::count(skb, Counter::HostPort);
    }
    Ok(())
}

/// Has an answer leave as the node. Whether it was one.
#[inline(always)]
pub fn outbound<V: Apart>(skb: Skb, packet: &mut Packet<V>) -> Result<bool, Counter> {
    let (Some(config), Some(scratch)) = (maps::config(), V::scratch()) else { return Ok(false) };
    // SAFETY: as above.
    let scratch = unsafe { &mut *scratch };
    if packet.kind != Kind::Plain && packet.kind != Kind::Optioned {
        return Ok(false);
    }
    // Most packets are no pod's, and need not be looked for in larger maps.
    if maps::endpoint::<V>(&packet.tuple.source).is_none() {
        return Ok(false);
    }
    if !mapping::answered(skb, packet, config, &Clock::outward(config), scratch) {
        return Ok(false);
    }
    become_tuple(skb, packet, &scratch.tuple)?;
    report::count(skb, Counter::HostPort);
    Ok(true)
}
