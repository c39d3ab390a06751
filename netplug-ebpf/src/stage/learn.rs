//! Learn what the host made of a packet that it let through.
//!
//! # Learned
//! A TCP or UDP packet under way that carries the hash of a visit, and is the visit's packet, one hop further, by all that
//! neither NAT nor forwarding changes.
//! # Not learned
//! The host's own packets, packets of interfaces that netplug does not serve, fragments, ICMP; tunnel packets
//! and others that inherited a hash but are not what entered; what the host decided in an epoch that has ended since, or
//! for an interface that is not served any more.
//! Towards a pod, what is not for an address of its: a bridge floods what it does not know, and others mirror. Towards an
//! uplink, what the host sent to another next hop than the short way would find (it routes by more than addresses).
//! # Forgotten in turn
//! A translated flow whose tuple was cached as an untouched one: that entry and its reverse belong to an older flow.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::due::revisit_at;
use netplug_common::decide::learn::{contradicts, flags};
use netplug_common::decide::rewrite::deltas;
use netplug_common::maps::config::Config;
use netplug_common::maps::flow::{Flow, UNTOUCHED};
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::Tuple;

use crate::maps::Scratch;
use crate::packet::{Header, Packet, ethernet};
use crate::skb::Skb;
use crate::stage::visit::can_be_learned;
use crate::{log, maps, report, route};

/// Learns from a packet as it leaves by the interface that the program runs on.
#[inline(always)]
pub fn learn<V: Header>(skb: Skb, packet: &Packet<V>, to_uplink: bool) {
    let Some(config) = maps::config() else { return };
    if !can_be_learned(packet, config) {
        return;
    }
    let hash = skb.hash();
    let (Some(entry), Some(scratch)) = (V::visits().get_ptr_mut(hash), V::scratch()) else {
        return;
    };
    // SAFETY: the verifier knows both pointers to be values'; the scratch is this CPU's. The visit is copied first and
    // believed only by its seal, since another CPU may be writing it.
    let scratch = unsafe {
        core::ptr::copy_nonoverlapping(entry, &raw mut (*scratch).visit, 1);
        &mut *scratch
    };
    let visit = &scratch.visit;
    if visit.seal != visit.digest() || packet.identity(skb, packet.hops) != Some(visit.identity) {
        report::count(skb, Counter::NotIdentical);
        return;
    }
    if fill(skb, packet, config, to_uplink, scratch).is_none() {
        return;
    }
    let Scratch { visit, flow, .. } = scratch;
    if write(visit, flow).is_none() {
        return;
    }
    // SAFETY: as above; a lost write costs a try.
    unsafe { (*entry).tries = 0 };
    report::count(skb, Counter::Learned);
    log::learned(skb, &visit.entered, &packet.tuple, visit.entered_by);
}

/// Makes the entry.
#[inline(always)]
fn fill<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    config: &Config,
    to_uplink: bool,
    scratch: &mut Scratch<V>,
) -> Option<()> {
    let Scratch { visit, flow, lookup, .. } = scratch;
    // Read anew: the packet's entry may lie before its interface was taken away, and its leaving behind.
    let is_served =
        maps::port(visit.entered_by).is_some() || maps::uplink(visit.entered_by).is_some();
    if visit.epoch != config.epoch || !is_served {
        return None;
    }
    flow.mtu = match skb.check_mtu(0, 0) {
        Ok(mtu) | Err(mtu) if mtu != 0 => mtu,
        _ => return None,
    };
    let mut is_same_bridge = false;
    if to_uplink {
        let macs = ethernet::macs(skb)?;
        let (next_hop, mtu) = route::next_hop(skb, &packet.tuple, skb.ifindex(), lookup)?;
        if !ethernet::same(&macs.destination, &next_hop) {
            return None;
        }
        // The host goes by the route's.
        for mtu in [mtu, maps::uplink(skb.ifindex())?.route_mtu] {
            if mtu != 0 && mtu < flow.mtu {
                flow.mtu = mtu;
            }
        }
        flow.destination_mac = [0; 6];
        flow.source_mac = [0; 6];
    } else {
        let endpoint = maps::endpoint::<V>(&packet.tuple.destination)?;
        if endpoint.ifindex != skb.ifindex() {
            return None;
        }
        let port = maps::port(skb.ifindex())?;
        flow.destination_mac = port.pod_mac;
        flow.source_mac = port.gateway_mac;
        is_same_bridge = port.bridge != 0
            && maps::port(visit.entered_by).is_some_and(|from| from.bridge == port.bridge);
    }
    let change = deltas(&visit.entered, &packet.tuple);
    // SAFETY: takes nothing.
    let now = unsafe { helpers::bpf_jiffies64() };
    flow.tag = visit.entered.tag();
    flow.revisit_at = revisit_at(now, config.revisit_jiffies, skb.hash());
    flow.left = packet.tuple;
    flow.entered_by = visit.entered_by;
    flow.leaves_by = skb.ifindex();
    flow.epoch = visit.epoch;
    flow.flags = flags(&visit.entered, &packet.tuple, to_uplink, is_same_bridge);
    flow.address_delta = change.addresses;
    flow.port_delta = change.ports;
    Some(())
}

/// Writes the entry, and removes what it contradicts.
#[inline(always)]
fn write<V: Header>(visit: &Visit<V>, flow: &Flow<V>) -> Option<()> {
    // An untouched one contradicts nothing.
    if flow.flags & UNTOUCHED == 0 {
        forget_twins::<V>(&flow.left, flow.flags);
    }
    match V::flows().get_ptr_mut(&visit.entered) {
        // Refreshed in place: an update of a known key takes a new element, and may evict another flow.
        // SAFETY: the verifier knows the pointer to be a value's; each field is one store.
        Some(known) if unsafe { is_same(&*known, flow) } => unsafe {
            (*known).revisit_at = flow.revisit_at;
            (*known).epoch = flow.epoch;
        },
        _ => V::flows().insert(&visit.entered, flow, u64::from(BPF_ANY)).ok()?,
    }
    Some(())
}

/// Whether the host decided as before.
#[inline(always)]
fn is_same<V: Header>(known: &Flow<V>, flow: &Flow<V>) -> bool {
    known.tag == flow.tag
        && known.left == flow.left
        && known.entered_by == flow.entered_by
        && known.leaves_by == flow.leaves_by
        && known.flags == flow.flags
        && known.mtu == flow.mtu
        && known.destination_mac == flow.destination_mac
        && known.source_mac == flow.source_mac
}

/// Both directions, each for itself: the cache may have lost either.
#[inline(always)]
fn forget_twins<V: Header>(left: &Tuple<V>, learned: u32) {
    forget_twin::<V>(left, learned);
    forget_twin::<V>(&left.reversed(), learned);
}

#[inline(always)]
fn forget_twin<V: Header>(twin: &Tuple<V>, learned: u32) {
    let Some(cached) = V::flows().get_ptr(twin) else { return };
    // SAFETY: a stale or torn flag costs a visit, or leaves to the next packet what this one missed.
    if unsafe { contradicts(learned, (*cached).flags) } {
        // Content if another CPU was first.
        let _ = V::flows().remove(twin);
    }
}
