//! Whether what a pod sends answers a HostPort's call.

use aya_ebpf::bindings::BPF_ANY;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::has_expired;
use netplug_common::decide::opening::Moment;
use netplug_common::maps::config::Config;
use netplug_common::maps::nat::{HOST_PORT, Mapping, SPARE};
use netplug_common::tuple::Tuple;

use super::find_target;
use super::halves::turn;
use crate::apart::Apart;
use crate::mapping::{Clock, insert, touch};
use crate::maps::Scratch;
use crate::packet::{Header, Packet};
use crate::report;
use crate::skb::Skb;

/// Whether a packet answers a HostPort's call. Then the scratch's `tuple` is what it leaves as.
///
/// A flow whose halves have ended goes on while both are there and the port leads to the pod still: whom the pod answers knows the
/// node only. (Who calls the pod itself by that tuple takes them away.)
#[inline(always)]
pub fn answered<V: Apart>(
    skb: Skb,
    packet: &Packet<V>,
    config: &Config,
    clock: &Clock,
    scratch: &mut Scratch<V>,
) -> bool {
    let Scratch { half, tuple, .. } = scratch;
    let out = V::nat_out().get_ptr_mut(&packet.tuple);
    half.kind = 0;
    if let Some(out) = out {
        // SAFETY: the verifier knows the pointer to be a value's, here and below.
        *half = unsafe { *out };
        if half.kind != HOST_PORT && !has_expired(half.expires_at, clock.low()) {
            return false;
        }
    }
    *tuple = packet.tuple;
    turn(tuple);
    let spare = V::nat_in().get_ptr_mut(&*tuple);
    if half.kind != HOST_PORT {
        let Some(spare) = spare else { return false };
        // SAFETY: as above.
        *half = unsafe { *spare };
        if half.kind != SPARE {
            return false;
        }
    }
    tuple.destination = half.address;
    tuple.destination_port = half.port;
    if has_expired(half.expires_at, clock.low()) {
        let leads_here = packet.moment() != Moment::Opening
            && out.is_some()
            && is_kind(spare, SPARE)
            && find_target(tuple, config, half)
            && half.address == packet.tuple.source
            && half.port == packet.tuple.source_port
            && !is_anothers(tuple, clock);
        if !leads_here {
            return false;
        }
        half.address = tuple.destination;
        half.port = tuple.destination_port;
    }
    let is_missing = half.kind != HOST_PORT;
    if is_missing {
        half.kind = HOST_PORT;
        touch(half, packet, clock);
    } else {
        touch_half(out, packet, clock);
    }
    touch_half(spare, packet, clock);
    touch_half(V::nat_in().get_ptr_mut(&*tuple), packet, clock);
    turn(tuple);
    if is_missing {
        // Last, since it may remove what others point to. Where there is no room, the next packet tries again.
        let _ = insert(V::nat_out(), &packet.tuple, half, BPF_ANY);
        report::count(skb, Counter::Healed);
    }
    true
}

#[inline(always)]
fn is_kind<V: Header>(half: Option<*mut Mapping<V>>, kind: u8) -> bool {
    // SAFETY: the verifier knows the pointer to be a value's.
    half.is_some_and(|half| unsafe { (*half).kind == kind })
}

/// Whether a caller's tuple is that of another flow by now.
#[inline(always)]
fn is_anothers<V: Header>(called: &Tuple<V>, clock: &Clock) -> bool {
    let Some(half) = V::nat_in().get_ptr(called) else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    unsafe { (*half).kind != HOST_PORT && !has_expired((*half).expires_at, clock.low()) }
}

#[inline(always)]
fn touch_half<V: Header>(half: Option<*mut Mapping<V>>, packet: &Packet<V>, clock: &Clock) {
    if let Some(half) = half
        // SAFETY: the verifier knows the pointer to be a value's.
        && matches!(unsafe { (*half).kind }, SPARE | HOST_PORT)
    {
        touch(half, packet, clock);
    }
}
