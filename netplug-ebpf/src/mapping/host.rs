//! What the host holds: ports of an uplink's address that its own NAT or its echoes use, in NAT_IN alone.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use netplug_common::decide::mapping_life::has_expired;
use netplug_common::maps::nat::{HOST, TRANSLATED};
use netplug_common::tuple::Tuple;

use super::{Clock, half, take, touch};
use crate::packet::{Header, Packet};

/// Has the host hold the port that `packet`, which its NAT sends by an uplink's address, leaves by. `false`: a pod holds it.
/// Out of line.
#[inline(never)]
pub fn reserve<V: Header>(packet: &Packet<V>, clock: &Clock) -> bool {
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
            if !take(known, clock) {
                return false;
            }
            BPF_ANY
        }
    };
    let Tuple { source, source_port, .. } = packet.tuple;
    let half = half(packet, clock, HOST, source, source_port);
    if V::nat_in().insert(&answers, &half, u64::from(claim)).is_ok() {
        return true;
    }
    // Another CPU was first, for a pod or with a packet of this very flow; or the map is full, and the next one tries again.
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
pub fn take_for_host<V: Header>(packet: &Packet<V>, clock: &Clock) {
    let Tuple { source, source_port, .. } = packet.tuple;
    let half = half(packet, clock, HOST, source, source_port);
    // Full: the next packet tries again.
    let _ = V::nat_in().insert(&packet.tuple.reversed(), &half, u64::from(BPF_ANY));
}
