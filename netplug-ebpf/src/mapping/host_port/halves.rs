//! The halves of a HostPort's flow.

use aya_ebpf::bindings::BPF_ANY;
use netplug_common::decide::mapping_life::{Stage, has_expired};
use netplug_common::maps::nat::{HOST_PORT, IDENTITY, Mapping, SPARE, TRANSLATED};
use netplug_common::tuple::{Tuple, UDP};

use crate::apart::Apart;
use crate::mapping::{self, Clock, insert, touch};
use crate::maps;
use crate::maps::{Mappings, Scratch};
use crate::packet::{Header, Packet};

const IN_USE: u32 = 1;
pub(super) const NO_ROOM: u32 = 2;

/// Writes all halves of a flow that a caller's `packet` is of, or puts off their ends. The scratch's `half` has pod and port;
/// its `tuple` becomes what the packet becomes. 0, or what failed (numbers, since the verifier takes half of a small result in a
/// register for a broken pointer). Out of line.
#[inline(never)]
pub(super) fn hold_halves<V: Apart>(
    packet: &Packet<V>,
    clock: &Clock,
    scratch: &mut Scratch<V>,
    is_new: bool,
) -> u32 {
    let Scratch { half, tuple, .. } = scratch;
    let fresh = mapping::half(packet, clock, HOST_PORT, half.address, half.port);
    *half = fresh;
    let mut failed = V::hold(&packet.tuple, half, packet, false);
    *tuple = packet.tuple;
    tuple.destination = half.address;
    tuple.destination_port = half.port;
    half.kind = SPARE;
    half.address = packet.tuple.destination;
    half.port = packet.tuple.destination_port;
    failed |= V::hold(tuple, half, packet, false);
    half.kind = HOST_PORT;
    turn(tuple);
    failed |= V::hold(tuple, half, packet, true);
    if is_new && tuple.source == tuple.destination {
        // To itself: the way there is one from the node's address, by the caller's port. Its halves are those of a call by
        // which the pod answers, and are kept by it.
        half.port = packet.tuple.source_port;
        half.kind = SPARE;
        failed |= V::hold(tuple, half, packet, false);
        half.kind = HOST_PORT;
        half.address = packet.tuple.source;
        tuple.destination = packet.tuple.destination;
        failed |= V::hold(tuple, half, packet, false);
        half.address = packet.tuple.destination;
        tuple.destination = packet.tuple.source;
        turn(tuple);
        failed |= V::hold(tuple, half, packet, true);
        return failed;
    }
    turn(tuple);
    failed
}

/// Writes one half, or puts off its end, in NAT_OUT or NAT_IN. 0, [`IN_USE`] where another flow has its tuple, or [`NO_ROOM`].
#[inline(always)]
pub fn hold<V: Apart>(key: &Tuple<V>, half: &Mapping<V>, packet: &Packet<V>, is_out: bool) -> u32 {
    let Some(config) = maps::config() else { return 0 };
    if is_out {
        hold_in(V::nat_out(), key, half, packet, &Clock::inward(config), true)
    } else {
        hold_in(V::nat_in(), key, half, packet, &Clock::inward(config), false)
    }
}

#[inline(always)]
fn hold_in<V: Apart>(
    table: &Mappings<V>,
    key: &Tuple<V>,
    half: &Mapping<V>,
    packet: &Packet<V>,
    clock: &Clock,
    is_out: bool,
) -> u32 {
    if let Some(known) = table.get_ptr_mut(key) {
        // SAFETY: the verifier knows the pointer to be a value's.
        let held = unsafe { &*known };
        if held.kind == half.kind && held.address == half.address && held.port == half.port {
            touch(known, packet, clock);
            return 0;
        }
        // What the pod sends to a caller of its HostPort answers it, also where the pod spoke first. (A connection of TCP is
        // the one or the other.)
        let is_answer_from_now_on =
            is_out && held.kind == TRANSLATED && packet.tuple.protocol == UDP;
        if is_answer_from_now_on {
            // Content if it is not cached.
            let _ = V::flows().remove(key);
        } else {
            let stage = Stage::of(held.stage);
            // One that carries no data yet, or any more, may be of an answer of the pod's that was sent when nothing was known of
            // the call.
            let is_idle = held.kind == IDENTITY && stage.is_idle();
            if held.kind != 0 && !is_idle && !has_expired(held.expires_at, clock.low()) {
                return IN_USE;
            }
        }
    }
    if insert(table, key, half, BPF_ANY) { 0 } else { NO_ROOM }
}

/// The tuple of a call as the pod gets it, from the scratch's `half`; it stands in the scratch's `tuple`.
#[inline(always)]
pub(super) fn address_to_pod<V: Header>(call: &Tuple<V>, scratch: &mut Scratch<V>) {
    let Scratch { half, tuple, .. } = scratch;
    *tuple = *call;
    tuple.destination = half.address;
    tuple.destination_port = half.port;
}

/// Whether another half of the HostPort's flow is there, by which it is one. The scratch's `half` has pod and port.
#[inline(always)]
pub(super) fn is_called_already<V: Header>(
    call: &Tuple<V>,
    clock: &Clock,
    scratch: &mut Scratch<V>,
) -> bool {
    address_to_pod(call, scratch);
    let tuple = &mut scratch.tuple;
    if is_half(V::nat_in().get_ptr(&*tuple), SPARE, call, clock) {
        return true;
    }
    turn(tuple);
    is_half(V::nat_out().get_ptr(&*tuple), HOST_PORT, call, clock)
}

#[inline(always)]
fn is_half<V: Header>(
    half: Option<*const Mapping<V>>,
    kind: u8,
    call: &Tuple<V>,
    clock: &Clock,
) -> bool {
    let Some(half) = half else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    let half = unsafe { &*half };
    half.kind == kind
        && half.address == call.destination
        && half.port == call.destination_port
        && !has_expired(half.expires_at, clock.low())
}

/// Makes a tuple that of the answers, in place.
#[inline(always)]
pub(super) fn turn<V: Header>(tuple: &mut Tuple<V>) {
    core::mem::swap(&mut tuple.source, &mut tuple.destination);
    core::mem::swap(&mut tuple.source_port, &mut tuple.destination_port);
}
