//! Learn what the host made of a packet that it let through.
//!
//! # Learned
//! A TCP or UDP packet under way that carries the hash of a visit, and is the visit's packet by all that neither
//! NAT nor forwarding changes.
//! # Not learned
//! The host's own packets, packets of interfaces that netplug does not serve, fragments, ICMP; tunnel packets
//! and others that inherited a hash but are not what entered.
//! # Forgotten in turn
//! A translated flow whose tuple was cached as an untouched one: that entry and its reverse belong to an older flow.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::due::revisit_at;
use netplug_common::decide::learn::{contradicts, flags};
use netplug_common::decide::opening::Moment;
use netplug_common::decide::rewrite::deltas;
use netplug_common::maps::config::{Config, STEERING_ALWAYS};
use netplug_common::maps::flow::Flow;
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::Tuple;

use crate::maps::Scratch;
use crate::packet::{Header, Packet};
use crate::skb::Skb;
use crate::{log, maps, report};

/// Learns from a packet as it leaves by the interface that the program runs on.
#[inline(always)]
pub fn learn<V: Header>(skb: Skb, packet: &Packet<V>, to_uplink: bool) {
    let Some(config) = maps::config() else { return };
    if config.steering == STEERING_ALWAYS
        || !packet.is_plain()
        || !matches!(packet.moment(), Moment::Underway)
    {
        return;
    }
    let hash = skb.hash();
    let (Some(entry), Some(scratch)) = (V::visits().get_ptr_mut(hash), V::scratch()) else {
        return;
    };
    // SAFETY: the verifier knows both pointers to be values'; the scratch is this CPU's. The visit is copied first and
    // believed only by its seal, since another CPU may be writing it.
    let Scratch { visit, flow } = unsafe {
        core::ptr::copy_nonoverlapping(entry, &raw mut (*scratch).visit, 1);
        &mut *scratch
    };
    if visit.seal != visit.digest() || packet.identity(skb) != Some(visit.identity) {
        report::count(skb, Counter::NotIdentical);
        return;
    }
    if fill(skb, packet, config, to_uplink, visit, flow).is_none() || write(visit, flow).is_none() {
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
    visit: &Visit<V>,
    flow: &mut Flow<V>,
) -> Option<()> {
    flow.mtu = match skb.check_mtu(0, 0) {
        Ok(mtu) | Err(mtu) if mtu != 0 => mtu,
        _ => return None,
    };
    let mut is_same_bridge = false;
    if to_uplink {
        flow.destination_mac = [0; 6];
        flow.source_mac = [0; 6];
    } else {
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
    flow.epoch = config.epoch;
    flow.flags = flags(&visit.entered, &packet.tuple, to_uplink, is_same_bridge);
    flow.address_delta = change.addresses;
    flow.port_delta = change.ports;
    Some(())
}

/// Writes the entry, and removes what it contradicts.
#[inline(always)]
fn write<V: Header>(visit: &Visit<V>, flow: &Flow<V>) -> Option<()> {
    forget_twin::<V>(&flow.left, flow.flags);
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

#[inline(always)]
fn forget_twin<V: Header>(left: &Tuple<V>, learned: u32) {
    let stands_against = |tuple: &Tuple<V>| {
        // SAFETY: a stale or torn flag costs a visit, or leaves to the next packet what this one missed.
        V::flows()
            .get_ptr(tuple)
            .is_some_and(|cached| unsafe { contradicts(learned, (*cached).flags) })
    };
    if stands_against(left) {
        // Content if another CPU was first.
        let _ = V::flows().remove(left);
        let reply = left.reversed();
        if stands_against(&reply) {
            let _ = V::flows().remove(&reply);
        }
    }
}
