//! Whose a packet from outside is.

use aya_ebpf::bindings::BPF_ANY;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::has_expired;
use netplug_common::maps::nat::{HOST, HOST_PORT, IDENTITY, MOVED, Mapping, TRANSLATED};
use netplug_common::tuple::Tuple;

use super::{Clock, insert, lost_half, touch};
use crate::apart::Apart;
use crate::packet::Packet;
use crate::skb::Skb;
use crate::{maps, report};

/// What is known of a packet from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// It goes as it is.
    Identity,
    /// It is an answer, and to be translated.
    Translation,
    /// The same, and it is the host's own by what it becomes: no other uplink is to look at it again.
    Moved,
}

/// Looks a packet from outside up; `to` becomes what it is to be translated to. Writes NAT_OUT again where it is
/// missing.
#[inline(always)]
pub fn inbound<V: Apart>(skb: Skb, packet: &Packet<V>, clock: &Clock, to: &mut Tuple<V>) -> Found {
    let Some(known) = V::nat_in().get_ptr_mut(&packet.tuple) else { return Found::Nothing };
    // SAFETY: the verifier knows the pointer to be a value's.
    let mapping = unsafe { *known };
    // Elements of a map change hands at once, also under a reader's: it was this tuple's all the while only if it still is.
    let is_still = V::nat_in().get_ptr_mut(&packet.tuple) == Some(known);
    if !is_still || has_expired(mapping.expires_at, clock.low()) {
        return Found::Nothing;
    }
    if mapping.kind == HOST {
        touch(known, packet, clock);
        return Found::Identity;
    }
    if !matches!(mapping.kind, IDENTITY | TRANSLATED | MOVED) {
        return Found::Nothing;
    }
    // A pod that is being deleted is no reason to write what DEL removes.
    if mapping.kind != MOVED && maps::endpoint::<V>(&mapping.address).is_none() {
        return Found::Nothing;
    }
    touch(known, packet, clock);
    if mapping.kind == IDENTITY {
        write_out(&packet.tuple.reversed(), packet, clock, &mapping);
        return Found::Identity;
    }
    to.destination = mapping.address;
    to.destination_port = mapping.port;
    if write_out(&to.reversed(), packet, clock, &mapping) {
        report::count(skb, Counter::Healed);
    }
    if mapping.kind == MOVED { Found::Moved } else { Found::Translation }
}

/// Puts off the end of the half in NAT_OUT of what the pod sends as `sent`, where `packet` is an answer to it that has not
/// been translated back; writes it where it is missing, and then returns `true`. What `other`, NAT_IN's half, says of the flow
/// counts.
#[inline(always)]
fn write_out<V: Apart>(
    sent: &Tuple<V>,
    packet: &Packet<V>,
    clock: &Clock,
    other: &Mapping<V>,
) -> bool {
    if let Some(known) = V::nat_out().get_ptr_mut(sent) {
        // SAFETY: the verifier knows the pointer to be a value's.
        let held = unsafe { &*known };
        if held.kind == other.kind {
            touch(known, packet, clock);
            return false;
        }
        // Who calls a HostPort is answered by it, and who calls the pod by that.
        if matches!(held.kind, HOST_PORT | IDENTITY) && !has_expired(held.expires_at, clock.low()) {
            return false;
        }
    }
    let Tuple { destination, destination_port, .. } = packet.tuple;
    let out = lost_half(other, packet, clock, destination, destination_port);
    // Where there is no room, the next packet tries again.
    insert(V::nat_out(), sent, &out, BPF_ANY)
}
