//! What the host holds: ports of an uplink's address that its own NAT or its echoes use, in NAT_IN alone.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use netplug_common::decide::mapping_life::has_expired;
use netplug_common::maps::nat::{HOST, HOST_PORT, MOVED, Mapping, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use super::outbound::{NO_ROOM, NONE_LEFT};
use super::search::{note_privileged, port_for};
use super::{Clock, answers_to, half, insert, lost_half, take, touch};
use crate::apart::Apart;
use crate::maps;
use crate::packet::{Header, Packet};
use crate::skb::Skb;

/// Has the host hold the port that `packet`, which its NAT sends by an uplink's address, leaves by. `false`: a pod holds it.
/// Out of line.
#[inline(never)]
pub fn reserve<V: Apart>(packet: &Packet<V>, clock: &Clock) -> bool {
    let answers = packet.tuple.reversed();
    let claim = match V::nat_in().get_ptr_mut(&answers) {
        None if is_lost_half(packet, &answers, clock) => return false,
        None => BPF_NOEXIST,
        Some(known) => {
            // SAFETY: the verifier knows the pointer to be a value's.
            if unsafe { (*known).kind } == HOST {
                touch(known, packet, clock);
                return true;
            }
            if !take(known, clock, false) {
                return false;
            }
            BPF_ANY
        }
    };
    let Tuple { source, source_port, .. } = packet.tuple;
    let half = half(packet, clock, HOST, source, source_port);
    if insert(V::nat_in(), &answers, &half, claim) {
        note_privileged::<V>(u32::from(source_port.get()));
        return true;
    }
    // Another CPU was first, for a pod or with a packet of this very flow; or there is no room, and the next one tries again.
    // SAFETY: as above.
    V::nat_in().get_ptr(&answers).is_none_or(|known| unsafe { (*known).kind } == HOST)
}

/// Whether a pod's flow that is cached goes by the port that `packet` wants, although NAT_IN has lost its half.
#[inline(always)]
fn is_lost_half<V: Header>(packet: &Packet<V>, answers: &Tuple<V>, clock: &Clock) -> bool {
    let Some(flow) = V::flows().get_ptr(answers) else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    let sent = unsafe { (*flow).left.reversed() };
    let Some(half) = V::nat_out().get_ptr(&sent) else { return false };
    // SAFETY: as above.
    let half = unsafe { &*half };
    half.kind == TRANSLATED
        && half.address == packet.tuple.source
        && half.port == packet.tuple.source_port
        && !has_expired(half.expires_at, clock.low())
}

/// The same where the host cannot be refused it: a pod that holds it gets another.
#[inline(always)]
pub fn take_for_host<V: Apart>(packet: &Packet<V>, clock: &Clock) {
    let Tuple { source, source_port, .. } = packet.tuple;
    let half = half(packet, clock, HOST, source, source_port);
    // Where there is no room, the next packet tries again.
    let _ = insert(V::nat_in(), &packet.tuple.reversed(), &half, BPF_ANY);
}

/// The port, in host order, that a packet of a socket of the host's leaves by, where that is another than its own: a pod had that
/// one already when the socket got it, and neither is to lose its connection. 0: its own. [`NONE_LEFT`], [`NO_ROOM`]: there is
/// none. `may_begin`: it may be the first of its connection.
#[inline(always)]
pub fn moved_to<V: Apart>(skb: Skb, packet: &Packet<V>, clock: &Clock, may_begin: bool) -> u32 {
    let Some(state) = maps::nat_state::<V>() else { return 0 };
    // SAFETY: the verifier knows the pointer to be a value's.
    if unsafe { (*state).moved } != 0
        && let Some(known) = V::nat_out().get_ptr_mut(&packet.tuple)
    {
        // SAFETY: as above.
        let mapping = unsafe { *known };
        if mapping.kind == MOVED
            && !has_expired(mapping.expires_at, clock.low())
            && keep_moved(packet, clock, &mapping)
        {
            touch(known, packet, clock);
            return u32::from(mapping.port.get());
        }
    }
    if !may_begin || !is_pods(packet, clock) {
        return 0;
    }
    let port = port_for(skb, packet, &packet.tuple.source);
    if port < NONE_LEFT {
        // SAFETY: as above.
        unsafe { (*state).moved = 1 };
        return if write_moved(packet, clock, port) { port } else { NO_ROOM };
    }
    port
}

/// Whether a pod holds the port that `packet` would leave by, or is called by it.
#[inline(always)]
fn is_pods<V: Header>(packet: &Packet<V>, clock: &Clock) -> bool {
    let Some(known) = V::nat_in().get_ptr(packet.tuple.reversed()) else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    let (kind, expires_at) = unsafe { ((*known).kind, (*known).expires_at) };
    matches!(kind, TRANSLATED | HOST_PORT) && !has_expired(expires_at, clock.low())
}

/// Puts off the end of NAT_IN's half of a [`MOVED`] mapping, or writes it where it is missing. `false`: another has the port.
#[inline(always)]
fn keep_moved<V: Header>(packet: &Packet<V>, clock: &Clock, mapping: &Mapping<V>) -> bool {
    let Tuple { source, source_port, .. } = packet.tuple;
    let answers = answers_to(&packet.tuple, mapping);
    match V::nat_in().get_ptr_mut(&answers) {
        Some(known) => {
            // SAFETY: the verifier knows the pointer to be a value's.
            let is_ours = unsafe { (*known).kind == MOVED && (*known).port == source_port };
            if is_ours {
                touch(known, packet, clock);
            }
            is_ours
        }
        None => {
            let half = lost_half(mapping, packet, clock, source, source_port);
            V::nat_in().insert(&answers, &half, u64::from(BPF_NOEXIST)).is_ok()
        }
    }
}

/// Whether `packet` has been moved already, by an uplink that lies upon this one.
#[inline(always)]
pub fn is_moved<V: Header>(skb: Skb, packet: &Packet<V>, clock: &Clock) -> bool {
    let Some(known) = V::nat_in().get_ptr_mut(packet.tuple.reversed()) else { return false };
    let Some(socket) = skb.sender() else { return false };
    // SAFETY: the verifier knows both pointers.
    let (kind, port, sender) = unsafe {
        let sender = core::ptr::read_volatile(&raw const (*socket).src_port) as u16;
        ((*known).kind, (*known).port.get(), sender)
    };
    let is_moved = kind == MOVED && port == sender;
    if is_moved {
        touch(known, packet, clock);
    }
    is_moved
}

/// Makes what was found for `packet` a [`MOVED`] mapping. `false`: there is no room. Out of line.
#[inline(never)]
fn write_moved<V: Apart>(packet: &Packet<V>, clock: &Clock, port: u32) -> bool {
    let port = Port::new(port as u16);
    let Tuple { source, source_port, .. } = packet.tuple;
    let mut answers = packet.tuple.reversed();
    answers.destination_port = port;
    let is_written =
        insert(V::nat_in(), &answers, &half(packet, clock, MOVED, source, source_port), BPF_ANY)
            && insert(
                V::nat_out(),
                &packet.tuple,
                &half(packet, clock, MOVED, source, port),
                BPF_ANY,
            );
    if !is_written {
        // The search has claimed the port, and the next packet searches again.
        let _ = V::nat_in().remove(&answers);
    }
    is_written
}
