//! Whether a packet from outside, or from a pod, calls a HostPort.

use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::{Stage, has_expired};
use netplug_common::decide::opening::{accepts, is_first};
use netplug_common::maps::config::{Config, MASQUERADE};
use netplug_common::maps::flow::{CLOSED, UNTOUCHED};
use netplug_common::maps::host_port::HostPort;
use netplug_common::maps::nat::{HOST, HOST_PORT, SPARE};
use netplug_common::tuple::{TCP, Tuple};

use super::find_target;
use super::halves::{NO_ROOM, address_to_pod, hold_halves, is_called_already, turn};
use super::held::give_to_host;
use crate::apart::Apart;
use crate::mapping::socket::has_connection;
use crate::mapping::{Clock, is_sweep_due, may_be_pods, touch};
use crate::maps;
use crate::maps::Scratch;
use crate::packet::{Header, Packet};
use crate::skb::Skb;

/// Whether a packet calls a HostPort. Then all halves of its flow are written, and the scratch's `tuple` is what it becomes.
#[inline(always)]
pub fn called<V: Apart>(
    skb: Skb,
    packet: &Packet<V>,
    config: &Config,
    clock: &Clock,
    scratch: &mut Scratch<V>,
) -> Result<bool, Counter> {
    let Some(is_new) = find_pod(skb, packet, config, clock, scratch)? else { return Ok(false) };
    if is_new && is_sweep_due::<V>() {
        V::sweep(false);
    }
    if is_new && packet.tuple.protocol == TCP && has_direct_twin(packet, clock, scratch) {
        return Err(Counter::TupleInUse);
    }
    match hold_halves(packet, clock, scratch, is_new) {
        0 => Ok(true),
        NO_ROOM => Err(Counter::MappingsFull),
        _ => Err(Counter::TupleInUse),
    }
}

/// Puts pod and port of a call into the scratch's `half`; whether they are of a HostPort's, rather than of a mapping. `None`: it
/// is no call of a HostPort.
#[inline(always)]
fn find_pod<V: Apart>(
    skb: Skb,
    packet: &Packet<V>,
    config: &Config,
    clock: &Clock,
    scratch: &mut Scratch<V>,
) -> Result<Option<bool>, Counter> {
    if !may_be_call(&packet.tuple, config) {
        return Ok(None);
    }
    if let Some(known) = V::nat_in().get_ptr_mut(&packet.tuple) {
        // SAFETY: the verifier knows the pointer to be a value's.
        let mapping = unsafe { &*known };
        if !has_expired(mapping.expires_at, clock.low()) {
            match mapping.kind {
                HOST_PORT => {
                    scratch.half.address = mapping.address;
                    scratch.half.port = mapping.port;
                    if accepts(packet.tcp_flags) && has_connection(skb, &packet.tuple) {
                        give_to_host(packet, clock, scratch);
                        return Ok(None);
                    }
                    if maps::endpoint::<V>(&scratch.half.address).is_some() {
                        return Ok(Some(false));
                    }
                }
                // A call of the pod's own address, by the very ports of a call of its HostPort: the pod could not tell them
                // apart, unless that has ended.
                SPARE if Stage::of(mapping.stage).has_ended() => {
                    forget_answers(packet);
                    return Ok(None);
                }
                SPARE => return Err(Counter::TupleInUse),
                HOST => {
                    touch(known, packet, clock);
                    return Ok(None);
                }
                _ => return Ok(None),
            }
        } else if mapping.kind == SPARE {
            forget_answers(packet);
        }
    }
    if answers_itself(packet, clock, scratch) {
        return Ok(Some(false));
    }
    if !find_target(&packet.tuple, config, &mut scratch.half) {
        return Ok(None);
    }
    if is_first(packet.tcp_flags) {
        return Ok(Some(true));
    }
    if has_connection(skb, &packet.tuple) {
        return Ok(None);
    }
    if may_answer_a_pods_call(packet, config) && !is_called_already(&packet.tuple, clock, scratch) {
        let has_searched = V::rebuild();
        if V::nat_in().get_ptr(&packet.tuple).is_some() {
            return Ok(None);
        }
        if !has_searched {
            return Err(Counter::NoMapping);
        }
    }
    Ok(Some(true))
}

/// Whether a packet goes to where HostPorts are, or to a pod: what goes elsewhere need not be looked for in maps of which each
/// lookup is a cache miss.
#[inline(always)]
fn may_be_call<V: Header>(tuple: &Tuple<V>, config: &Config) -> bool {
    maps::is_nodes::<V>(config, &tuple.destination)
        || maps::endpoint::<V>(&tuple.destination).is_some()
        || maps::host_port::<V>(&HostPort {
            address: tuple.destination,
            port: tuple.destination_port,
            protocol: tuple.protocol,
            _pad: [0; 5],
        })
        .is_some()
}

/// Whether a pod answers, by the node's address, a call that is its own, and of which NAT_IN has lost the half: the caller's
/// port is the answer's destination's. Puts pod and port into the scratch's `half`.
#[inline(always)]
fn answers_itself<V: Header>(packet: &Packet<V>, clock: &Clock, scratch: &mut Scratch<V>) -> bool {
    let Scratch { half, tuple, .. } = scratch;
    *tuple = packet.tuple;
    turn(tuple);
    tuple.source = packet.tuple.source;
    let Some(known) = V::nat_out().get_ptr(&*tuple) else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    let known = unsafe { &*known };
    half.address = packet.tuple.source;
    half.port = packet.tuple.destination_port;
    known.kind == HOST_PORT
        && known.address == packet.tuple.destination
        && known.port == packet.tuple.destination_port
        && !has_expired(known.expires_at, clock.low())
}

/// Forgets the way back of a HostPort's flow that has ended, since a call of the pod itself has its tuple: answers are that one's
/// from now on.
#[inline(always)]
fn forget_answers<V: Header>(call: &Packet<V>) {
    // Content if they are gone.
    let _ = V::nat_in().remove(&call.tuple);
    let answers = call.tuple.reversed();
    let is_host_ports = V::nat_out().get_ptr(&answers).is_some_and(|half| {
        // SAFETY: the verifier knows the pointer to be a value's.
        unsafe { (*half).kind == HOST_PORT }
    });
    if is_host_ports {
        let _ = V::nat_out().remove(&answers);
    }
}

/// Whether a packet to a HostPort may belong to a connection of a pod's that left by that port before it was a HostPort, and
/// of which NAT_IN has lost the half.
#[inline(always)]
fn may_answer_a_pods_call<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    V::nat_in().get_ptr(&packet.tuple).is_none()
        && packet.tuple.protocol == TCP
        && config.flags & MASQUERADE != 0
        && may_be_pods::<V>(config, packet.tuple.destination_port)
        && maps::is_nodes::<V>(config, &packet.tuple.destination)
}

/// Whether the caller has a connection with the pod by the very same port already, without a HostPort: the pod could not tell the
/// two apart. It is known of flows that are cached. The scratch's `half` has pod and port. Out of line.
#[inline(never)]
fn has_direct_twin<V: Header>(packet: &Packet<V>, clock: &Clock, scratch: &mut Scratch<V>) -> bool {
    address_to_pod(&packet.tuple, scratch);
    let tuple = &mut scratch.tuple;
    let called = flags_of_live(tuple, clock);
    turn(tuple);
    let all = called | flags_of_live(tuple, clock);
    all & UNTOUCHED != 0 && all & CLOSED == 0
}

/// The flags of a cached flow that is not due to ask again.
#[inline(always)]
fn flags_of_live<V: Header>(tuple: &Tuple<V>, clock: &Clock) -> u32 {
    let Some(flow) = V::flows().get_ptr(tuple) else { return 0 };
    // SAFETY: the verifier knows the pointer to be a value's.
    unsafe { if (*flow).revisit_at > clock.now { (*flow).flags } else { 0 } }
}
