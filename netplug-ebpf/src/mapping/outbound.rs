//! What a packet leaves by: the port that its flow has, or one that is found for it.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::has_expired;
use netplug_common::decide::opening::accepts;
use netplug_common::maps::nat::{IDENTITY, Mapping, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use super::identity::{is_answer, write_identity_in, write_identity_out};
use super::search::port_for;
use super::socket::has_socket;
use super::{Clock, answers_to, half, insert, is_half_of, is_translated, keep, lost_half, touch};
use crate::apart::Apart;
use crate::packet::{Header, Packet};
use crate::report;
use crate::skb::Skb;

/// Answer of [`source_for`]: the packet leaves as it is.
pub const AS_IT_IS: u32 = 0;
/// Answer of [`source_for`]: no port is left.
pub const NONE_LEFT: u32 = 1 << 16;
/// Answer of [`source_for`]: a port may be left, but no room to note it.
pub const NO_ROOM: u32 = 1 << 17;

/// The source port, in host order, that a packet leaving as `address` gets; or [`AS_IT_IS`], [`NONE_LEFT`], [`NO_ROOM`].
#[inline(always)]
pub fn source_for<V: Apart>(
    skb: Skb,
    packet: &Packet<V>,
    clock: &Clock,
    address: &V::Address,
) -> u32 {
    if let Some(known) = V::nat_out().get_ptr_mut(&packet.tuple) {
        // SAFETY: the verifier knows the pointer to be a value's.
        let mapping = unsafe { *known };
        if mapping.kind == IDENTITY && !has_expired(mapping.expires_at, clock.low()) {
            touch(known, packet, clock);
            write_identity_in(packet, clock);
            return AS_IT_IS;
        }
        if mapping.kind == TRANSLATED
            && mapping.address == *address
            && holds(skb, packet, clock, &mapping)
        {
            touch(known, packet, clock);
            return u32::from(mapping.port.get());
        }
    } else if is_answer(packet, clock) {
        write_identity_out(packet, clock);
        write_identity_in(packet, clock);
        report::count(skb, Counter::Healed);
        return AS_IT_IS;
    }
    if accepts(packet.tcp_flags) && !is_translated(&packet.tuple, clock) {
        // Only who was called accepts, whatever has become of what was known of the call.
        write_identity_out(packet, clock);
        write_identity_in(packet, clock);
        return AS_IT_IS;
    }
    let port = port_for(skb, packet, address);
    if port >= NONE_LEFT {
        return port;
    }
    write_translation_out(packet, clock, address, port);
    port
}

/// Out of line.
#[inline(never)]
fn write_translation_out<V: Apart>(
    packet: &Packet<V>,
    clock: &Clock,
    address: &V::Address,
    port: u32,
) {
    let mut mapping = half(packet, clock, TRANSLATED, *address, Port::new(port as u16));
    if let Some(other) = V::nat_in().get_ptr(answers_to(&packet.tuple, &mapping)) {
        // It may have been there all the while, and knows where the flow stands; the packet has touched it already.
        // SAFETY: the verifier knows the pointer to be a value's.
        let other = unsafe { &*other };
        if is_half_of(other, &packet.tuple) {
            mapping.stage = other.stage;
            mapping.expires_at = other.expires_at;
        }
    }
    // Where there is no room, the next packet finds NAT_IN and tries again.
    let _ = insert(V::nat_out(), &packet.tuple, &mapping, BPF_ANY);
}

/// Whether NAT_IN agrees with NAT_OUT's `mapping` of `packet`; written again where it is missing. Out of line.
#[inline(never)]
fn holds<V: Header>(skb: Skb, packet: &Packet<V>, clock: &Clock, mapping: &Mapping<V>) -> bool {
    let answers = answers_to(&packet.tuple, mapping);
    match V::nat_in().get_ptr_mut(&answers) {
        Some(other) => {
            // SAFETY: the verifier knows the pointer to be a value's.
            let is_ours = unsafe { is_half_of(&*other, &packet.tuple) };
            if is_ours && keep(skb, other, &answers, clock) {
                touch(other, packet, clock);
                return true;
            }
            false
        }
        None => {
            if has_expired(mapping.expires_at, clock.low()) && has_socket(skb, &answers) {
                return false;
            }
            let Tuple { source, source_port, .. } = packet.tuple;
            let other = lost_half(mapping, packet, clock, source, source_port);
            V::nat_in().insert(&answers, &other, u64::from(BPF_NOEXIST)).is_ok()
        }
    }
}
