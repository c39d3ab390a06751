//! Follow a flow that the host has decided: one lookup, check, rewrite, redirect.
//!
//! # Not followed, so that the host sees it
//! - no entry, or one that is void: of another interface or epoch, or due to ask again (an answer waits for its question)
//! - openings and closings, except of connections that the host does not know (`direct`); an opening also
//!   removes the entry, and a reset those of both directions
//! - whatever goes the way of a FIN behind it
//! - a packet with no hop left, or too long for the device

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::Global;
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::due::{Standing, Wait, standing, wait};
use netplug_common::decide::opening::{Moment, RST, visits, voids};
use netplug_common::maps::config::{Config, STEERING_DIRECT};
use netplug_common::maps::flow::{ALWAYS_DUE, CLOSED, DIRECT, Flow, SAME_BRIDGE, TO_UPLINK, TOLD};
use netplug_common::tuple::TCP;

use crate::maps;
use crate::packet::rewrite::ShortWay;
use crate::packet::{Header, Packet, ethernet};
use crate::report;
use crate::skb::{ETHERNET, Skb};
use crate::verdict::{Outcome, Verdict};

/// Whether `bpf_redirect_peer` leaves the packet type as it was, so that a frame that was not for the host end's
/// MAC would be dropped by the pod (before Linux 6.15, commit c4327229).
#[unsafe(no_mangle)]
static PEER_KEEPS_TYPE: Global<u8> = Global::new(1);

/// Sends the packet its flow's short way; `None` if it must visit the host.
#[inline(always)]
pub fn follow<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) -> Option<Outcome> {
    let entry = V::flows().get_ptr_mut(&packet.tuple)?;
    // SAFETY: the verifier knows the pointer to be a value's. Another CPU may write the value meanwhile, which
    // `is_still` finds out.
    let flow = unsafe { &*entry };
    let now = jiffies();
    match standing(flow, skb.ifindex(), config.epoch, now) {
        Standing::Good => {}
        Standing::Void => {
            if flow.entered_by == skb.ifindex() && visits(packet.moment()) {
                let _ = note_moment(entry, packet);
            }
            return None;
        }
        Standing::Recheck => recheck(skb, entry, packet, config, now)?,
        Standing::Waits if waits(entry, packet, config, now) => {}
        Standing::Waits => return None,
    }
    go(skb, packet, config, entry)
}

/// The same for a flow that was entered just now.
#[inline(always)]
pub fn follow_new<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) -> Option<Outcome> {
    go(skb, packet, config, V::flows().get_ptr_mut(&packet.tuple)?)
}

#[inline(always)]
fn go<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    config: &Config,
    entry: *mut Flow<V>,
) -> Option<Outcome> {
    // SAFETY: as in `follow`.
    let flow = unsafe { &*entry };
    if visits(packet.moment()) {
        note_moment(entry, packet)?;
    }
    let (flags, leaves_by) = (flow.flags, flow.leaves_by);
    if !fits(skb, packet, flow.mtu) {
        return None;
    }
    if flags & SAME_BRIDGE != 0 {
        let mac = flow.destination_mac;
        if !is_still(entry, packet) {
            return None;
        }
        let is_addressed =
            ethernet::macs(skb).is_some_and(|macs| ethernet::same(&macs.destination, &mac));
        if !is_addressed && ethernet::set_destination(skb, &mac).is_err() {
            return Some(Err(Counter::RewriteFailed));
        }
        report::count(skb, Counter::Hit);
        return Some(Ok(to_peer(skb, leaves_by)));
    }
    if packet.hops <= 1 {
        return None;
    }
    let way = ShortWay {
        left: flow.left,
        address_delta: flow.address_delta,
        port_delta: flow.port_delta,
        destination_mac: flow.destination_mac,
        source_mac: flow.source_mac,
    };
    if !is_still(entry, packet) {
        return None;
    }
    if V::write_short_way(skb, packet, &way).is_err() {
        return Some(Err(Counter::RewriteFailed));
    }
    report::count(skb, Counter::Hit);
    if flags & TO_UPLINK == 0 {
        return Some(Ok(to_peer(skb, leaves_by)));
    }
    skb.set_marker(config.marker);
    // SAFETY: no parameters: the kernel looks the next hop up itself.
    let code = unsafe { helpers::bpf_redirect_neigh(leaves_by, core::ptr::null_mut(), 0, 0) };
    Some(Ok(Verdict::Redirect(code as i32)))
}

/// Whether its L3 packets have up to `mtu` bytes, or the segments that it will be cut into.
#[inline(always)]
fn fits<V: Header>(skb: Skb, packet: &Packet<V>, mtu: u32) -> bool {
    if skb.length() <= mtu + ETHERNET {
        return true;
    }
    let segment = skb.segment_size();
    if segment == 0 {
        return false;
    }
    let transport = if packet.tuple.protocol == TCP {
        // The length of TCP's header, in words (RFC 9293 §3.1).
        skb.load::<u8>(packet.at(12)).map_or(60, |offset| u32::from(offset >> 4) * 4)
    } else {
        8
    };
    packet.at(transport) + segment <= mtu + ETHERNET
}

/// Whether the entry was this packet's flow all the while that it was read: LRU elements change hands at once.
#[inline(always)]
fn is_still<V: Header>(entry: *const Flow<V>, packet: &Packet<V>) -> bool {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as in `follow`; volatile, so that it is read here and not earlier.
    let tag = unsafe { core::ptr::read_volatile(&raw const (*entry).tag) };
    tag == packet.tuple.tag()
}

/// An opening or closing packet: only a flow that the host does not know lets it pass.
#[inline(always)]
fn note_moment<V: Header>(entry: *mut Flow<V>, packet: &Packet<V>) -> Option<()> {
    // SAFETY: as in `follow`. Flags are written by the flow's own packets only, and when it is learned.
    unsafe {
        if (*entry).flags & DIRECT == 0 {
            // A reset may not be heeded: if both sides go on, the host is to see it. Content if another CPU was first.
            if packet.tcp_flags & RST != 0 || voids(packet.moment()) {
                if packet.tcp_flags & RST != 0 {
                    let answers = (*entry).left.reversed();
                    let _ = V::flows().remove(&answers);
                }
                let _ = V::flows().remove(&packet.tuple);
                return None;
            }
            (*entry).flags |= CLOSED;
            // Who has closed only acknowledges from here on, the other side's FIN at last: the host is to see that, too. A
            // connection that it takes for one that is closing still has its server for as long, whoever calls by its port next.
            (*entry).revisit_at = ALWAYS_DUE;
            return None;
        }
        if matches!(packet.moment(), Moment::Closing) {
            (*entry).flags |= CLOSED;
            // A reset ends both directions; a FIN its own.
            if packet.tcp_flags & RST != 0
                && let Some(other) = V::flows().get_ptr_mut(packet.tuple.reversed())
            {
                (*other).flags |= CLOSED;
            }
        } else {
            (*entry).flags &= !CLOSED;
        }
    }
    Some(())
}

/// A direct flow after an epoch has ended, or some time has passed, or from another interface: no host need be asked, only whether its
/// pods are still where they were, or it is the same pod's. That it was asked tells that the flow is in use.
#[inline(always)]
fn recheck<V: Header>(
    skb: Skb,
    entry: *mut Flow<V>,
    packet: &Packet<V>,
    config: &Config,
    now: u64,
) -> Option<()> {
    if config.steering != STEERING_DIRECT {
        return None;
    }
    let endpoint = maps::endpoint::<V>(&packet.tuple.destination)?;
    if !maps::is_pods::<V>(&packet.tuple.source, skb.ifindex(), maps::port(skb.ifindex())?) {
        return None;
    }
    // SAFETY: as in `follow`.
    unsafe {
        if (*entry).leaves_by != endpoint.ifindex || (*entry).destination_mac != endpoint.mac {
            return None;
        }
        (*entry).epoch = config.epoch;
        (*entry).revisit_at = now + config.revisit_jiffies;
    }
    Some(())
}

/// Whether an answer follows its entry still, until what it answers has asked. Out of line.
#[inline(never)]
fn waits<V: Header>(entry: *mut Flow<V>, packet: &Packet<V>, config: &Config, now: u64) -> bool {
    // SAFETY: as in `follow`.
    let answer = unsafe { &mut *entry };
    let Some(question) = V::flows().get_ptr_mut(answer.left.reversed()) else { return false };
    // SAFETY: as above.
    let question = unsafe { &mut *question };
    let Config { revisit_jiffies, jiffies_per_second, .. } = *config;
    match wait(&packet.tuple, answer, question, now, revisit_jiffies, jiffies_per_second) {
        Wait::Ask => false,
        Wait::Follow => true,
        Wait::Tell => {
            // Should another flow have the element by now, it asks once more.
            question.revisit_at = now;
            answer.flags |= TOLD;
            true
        }
    }
}

#[inline(always)]
fn to_peer(skb: Skb, ifindex: u32) -> Verdict {
    if PEER_KEEPS_TYPE.load() != 0 {
        skb.is_for_host();
    }
    // SAFETY: takes numbers only.
    Verdict::Redirect(unsafe { helpers::bpf_redirect_peer(ifindex, 0) } as i32)
}

#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: takes nothing.
    unsafe { helpers::bpf_jiffies64() }
}
