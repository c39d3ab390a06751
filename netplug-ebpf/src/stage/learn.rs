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
//! uplink, what is for a pod of this node, and what the host sent to another next hop than the short way would find (it routes by
//! more than addresses).
//! # Forgotten in turn
//! What was cached untouched for the tuple that a translated flow leaves as, and what was cached for a flow's answers and leads
//! elsewhere than back: older flows, which the host has forgotten. And, where the host lets datagrams pass untouched that it had
//! translated, what they answered: it has forgotten that, and is to be asked.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::learn::{self as decide, Leaving};
use netplug_common::decide::room;
use netplug_common::maps::config::Config;
use netplug_common::maps::flow::{ALWAYS_DUE, Flow, NEW, TOLD, UNTOUCHED};
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::{Tuple, UDP};

use crate::maps::Scratch;
use crate::packet::{Header, Packet, ethernet};
use crate::skb::Skb;
use crate::stage::visit::{can_be_learned, is_visits};
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
    if !is_visits(skb, packet, visit, !to_uplink) {
        report::count(skb, Counter::NotIdentical);
        return;
    }
    let Some(leaving) = fill(skb, packet, config, to_uplink, scratch) else { return };
    let Scratch { visit, flow, .. } = scratch;
    if write(visit, flow, config, &leaving).is_none() {
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
) -> Option<Leaving> {
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
        if maps::endpoint::<V>(&packet.tuple.destination).is_some() {
            return None;
        }
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
    let leaving = Leaving {
        by: skb.ifindex(),
        to_uplink,
        same_bridge: is_same_bridge,
        hash: skb.hash(),
        // SAFETY: takes nothing.
        now: unsafe { helpers::bpf_jiffies64() },
        revisit: config.revisit_jiffies,
        jiffies_per_second: config.jiffies_per_second,
    };
    decide::fill(flow, visit, &packet.tuple, &leaving);
    Some(leaving)
}

/// Writes the entry, and removes what it contradicts.
#[inline(always)]
fn write<V: Header>(
    visit: &Visit<V>,
    flow: &mut Flow<V>,
    config: &Config,
    leaving: &Leaving,
) -> Option<()> {
    // An untouched one contradicts nothing.
    if flow.flags & UNTOUCHED == 0 {
        forget_twin::<V>(&flow.left, flow.flags);
    }
    forget_older_answers::<V>(visit, &flow.left.reversed());
    let known = V::flows().get_ptr_mut(&visit.entered);
    if flow.left.protocol == UDP {
        // SAFETY: the verifier knows the pointer to be a value's.
        let known = known.map(|known| unsafe { &*known });
        if flow.flags & UNTOUCHED != 0 {
            forget_question(known);
        }
        // What does not lead back has just been removed.
        let back = V::flows().get_ptr(flow.left.reversed());
        // SAFETY: as above.
        let back = back.map(|back| unsafe { &*back });
        let is_nodes = |address: &V::Address| maps::is_nodes::<V>(config, address);
        let answers_service = decide::answers_service(&visit.entered, &flow.left, is_nodes);
        decide::fill_datagrams(flow, known, back, answers_service, leaving);
    }
    match known {
        // Refreshed in place: an update of a known key takes a new element, and may evict another flow.
        // SAFETY: the verifier knows the pointer to be a value's; each field is one store.
        Some(known) if unsafe { decide::is_same(&*known, flow) } => unsafe {
            // One that is closing asks until it is opened anew.
            if (*known).revisit_at != ALWAYS_DUE {
                (*known).revisit_at = flow.revisit_at;
            }
            (*known).epoch = flow.epoch;
            (*known).flags = (*known).flags & !(TOLD | NEW) | flow.flags & NEW;
        },
        _ => {
            V::flows().insert(&visit.entered, flow, u64::from(BPF_ANY)).ok()?;
            if known.is_none() {
                take_room::<V>(config, leaving.now);
            }
        }
    }
    Some(())
}

/// Has the next visits know of one flow more.
#[inline(always)]
fn take_room<V: Header>(config: &Config, now: u64) {
    let Some(state) = maps::flow_state::<V>() else { return };
    // SAFETY: the verifier knows the pointer to be a value's; what CPUs write over one another's is a flow more.
    unsafe {
        (*state).taken_until =
            room::take((*state).taken_until, now, config.jiffies_per_second, config.flow_entries);
    }
}

/// Has what datagrams answered ask the host, which lets them pass untouched, where it had translated them.
#[inline(always)]
fn forget_question<V: Header>(known: Option<&Flow<V>>) {
    if let Some(known) = known
        && known.flags & UNTOUCHED == 0
    {
        // Content if it is gone.
        let _ = V::flows().remove(known.left.reversed());
    }
}

#[inline(always)]
fn forget_twin<V: Header>(twin: &Tuple<V>, learned: u32) {
    let Some(cached) = V::flows().get_ptr(twin) else { return };
    // SAFETY: a stale or torn flag costs a visit, or leaves to the next packet what this one missed.
    if unsafe { decide::contradicts(learned, (*cached).flags) } {
        // Content if another CPU was first.
        let _ = V::flows().remove(twin);
    }
}

/// Each direction for itself: the cache may have lost the other.
#[inline(always)]
fn forget_older_answers<V: Header>(visit: &Visit<V>, answers: &Tuple<V>) {
    let Some(cached) = V::flows().get_ptr(answers) else { return };
    // SAFETY: as above.
    let (only_holds, leads_back) =
        unsafe { ((*cached).entered_by == 0, decide::leads_back(&visit.entered, &(*cached).left)) };
    if !only_holds && !leads_back {
        // As above.
        let _ = V::flows().remove(answers);
    }
}
