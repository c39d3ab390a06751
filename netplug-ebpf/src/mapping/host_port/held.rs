//! Tuples by which what is no pod's, the host's own or what its NAT has made of others', leaves from a HostPort's port.

use aya_ebpf::bindings::BPF_ANY;
use netplug_common::maps::config::Config;
use netplug_common::maps::nat::HOST;
use netplug_common::tuple::Tuple;

use super::find_target;
use super::halves::{address_to_pod, is_called_already, turn};
use crate::apart::Apart;
use crate::mapping::{self, Clock, reserve};
use crate::maps::Scratch;
use crate::packet::{Header, Packet};

/// Has the host hold the tuple by which a packet, which is no pod's, leaves as the node from a HostPort's port: its answers would
/// be calls. `false`: somebody else has the tuple, be it a caller. Out of line.
#[inline(never)]
pub fn keep_from_callers<V: Apart>(packet: &Packet<V>, config: &'static Config) -> bool {
    let Some(scratch) = V::scratch() else { return true };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let scratch = unsafe { &mut *scratch };
    let answers = packet.tuple.reversed();
    let clock = Clock::outward(config);
    if find_target(&answers, config, &mut scratch.half)
        && is_called_already(&answers, &clock, scratch)
    {
        return false;
    }
    reserve(packet, &clock)
}

/// Has the host hold the tuple of a call which is none, but what a connection of the host's own gets: a straggler of an older
/// connection came in its stead. The scratch's `half` has pod and port. Out of line.
#[inline(never)]
pub(super) fn give_to_host<V: Header>(
    packet: &Packet<V>,
    clock: &Clock,
    scratch: &mut Scratch<V>,
) -> u32 {
    address_to_pod(&packet.tuple, scratch);
    // Content if they are gone.
    let _ = V::nat_in().remove(&scratch.tuple);
    turn(&mut scratch.tuple);
    let _ = V::nat_out().remove(&scratch.tuple);
    let Tuple { destination, destination_port, .. } = packet.tuple;
    scratch.half = mapping::half(packet, clock, HOST, destination, destination_port);
    // It is there already, so there is room.
    let _ = V::nat_in().insert(&packet.tuple, &scratch.half, u64::from(BPF_ANY));
    0
}
