//! Identities: connections that came in from outside to a pod's own address, whose answers go as they are. Two halves, as a
//! translation has.

use aya_ebpf::bindings::BPF_ANY;
use netplug_common::decide::mapping_life::{Stage, has_expired};
use netplug_common::decide::opening::is_first;
use netplug_common::maps::nat::{IDENTITY, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use super::{Clock, half, insert, lost_half, touch};
use crate::apart::Apart;
use crate::maps::Mappings;
use crate::packet::{Header, Packet};

/// Whether a packet answers one that came in to the pod's own address.
#[inline(always)]
pub(super) fn is_answer<V: Header>(packet: &Packet<V>, clock: &Clock) -> bool {
    let Some(half) = V::nat_in().get_ptr(packet.tuple.reversed()) else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    unsafe { (*half).kind == IDENTITY && !has_expired((*half).expires_at, clock.low()) }
}

/// Notes that `packet`, which the host hands to a pod, came in from outside to the pod's own address: answers are not
/// translated. Out of line.
#[inline(never)]
pub fn write_identity<V: Apart>(packet: &Packet<V>, clock: &Clock) {
    let tuple = &packet.tuple;
    let answer = tuple.reversed();
    // A flow that is masqueraded stays so.
    if keep_identity(
        (V::nat_out(), V::nat_in()),
        &answer,
        &tuple.destination,
        tuple.destination_port,
        packet,
        clock,
    ) {
        keep_identity(
            (V::nat_in(), V::nat_out()),
            tuple,
            &tuple.destination,
            tuple.destination_port,
            packet,
            clock,
        );
    }
}

/// Puts off the end of one half of an identity, or writes it: at `key`, for the pod's `address` and `port`, and as the half in
/// `other` stands, which may have been there all the while. `false`: there is
/// a translation that carries data. (One that nobody answered may be of an answer of the pod's, sent when nothing was known of
/// the call.)
#[inline(always)]
fn keep_identity<V: Apart>(
    (table, other): (&Mappings<V>, &Mappings<V>),
    key: &Tuple<V>,
    address: &V::Address,
    port: Port,
    packet: &Packet<V>,
    clock: &Clock,
) -> bool {
    if let Some(known) = table.get_ptr_mut(key) {
        // SAFETY: the verifier knows the pointer to be a value's.
        let held = unsafe { &*known };
        let has_ended = has_expired(held.expires_at, clock.low());
        if held.kind == IDENTITY && !has_ended {
            touch(known, packet, clock);
            return true;
        }
        let stage = Stage::of(held.stage);
        // An acceptance is no call: it may have been translated by an uplink below this one.
        let may_be_call = packet.tcp_flags == 0 || is_first(packet.tcp_flags);
        let is_idle = may_be_call && held.kind == TRANSLATED && stage.is_idle();
        if !has_ended && !is_idle {
            return false;
        }
    }
    let half = match other.get_ptr(key.reversed()) {
        // SAFETY: as above.
        Some(other) if unsafe { (*other).kind } == IDENTITY => unsafe {
            lost_half(&*other, packet, clock, *address, port)
        },
        _ => half(packet, clock, IDENTITY, *address, port),
    };
    // Where there is no room, the next packet tries again.
    let _ = insert(table, key, &half, BPF_ANY);
    true
}

/// Writes NAT_OUT's half of an identity, as a pod's answer finds it missing. Out of line.
#[inline(never)]
pub(super) fn write_identity_out<V: Apart>(packet: &Packet<V>, clock: &Clock) {
    let Tuple { source, source_port, .. } = packet.tuple;
    keep_identity((V::nat_out(), V::nat_in()), &packet.tuple, &source, source_port, packet, clock);
}

/// Keeps NAT_IN's half of an identity alive from the pod's side. Out of line.
#[inline(never)]
pub(super) fn write_identity_in<V: Apart>(packet: &Packet<V>, clock: &Clock) {
    let Tuple { source, source_port, .. } = packet.tuple;
    keep_identity(
        (V::nat_in(), V::nat_out()),
        &packet.tuple.reversed(),
        &source,
        source_port,
        packet,
        clock,
    );
}
