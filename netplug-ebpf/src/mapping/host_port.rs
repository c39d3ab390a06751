//! HostPorts: connections that came in to a port of the node, and go to a pod.
//!
//! The way in is one half, in NAT_IN, and heals by itself: HOSTPORTS says the same again. The way back is the other, in NAT_OUT,
//! and a spare of it lies in NAT_IN by the tuple as the pod gets it.
//! A pod that calls itself gets its own packet from the node's address, and answers that: two more halves, for the way there.

use aya_ebpf::bindings::{BPF_ANY, BPF_F_CURRENT_NETNS, bpf_sock_tuple};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::{Stage, has_expired};
use netplug_common::decide::opening::{Moment, accepts, is_first};
use netplug_common::maps::config::{Config, MASQUERADE};
use netplug_common::maps::flow::{CLOSED, UNTOUCHED};
use netplug_common::maps::host_port::HostPort;
use netplug_common::maps::nat::{HOST, HOST_PORT, IDENTITY, Mapping, SPARE, TRANSLATED};
use netplug_common::tuple::{TCP, Tuple, UDP};

use super::{Clock, is_sweep_due, reserve, touch};
use crate::apart::Apart;
use crate::maps::{Mappings, Scratch};
use crate::packet::{Header, Packet};
use crate::skb::{Skb, bytes_of};
use crate::{maps, report};

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

const IN_USE: u32 = 1;
const NO_ROOM: u32 = 2;

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
        && config.may_be_pods(packet.tuple.destination_port)
        && maps::is_nodes::<V>(config, &packet.tuple.destination)
}

/// The tuple of a call as the pod gets it, from the scratch's `half`; it stands in the scratch's `tuple`.
#[inline(always)]
fn address_to_pod<V: Header>(call: &Tuple<V>, scratch: &mut Scratch<V>) {
    let Scratch { half, tuple, .. } = scratch;
    *tuple = *call;
    tuple.destination = half.address;
    tuple.destination_port = half.port;
}

/// Whether another half of the HostPort's flow is there, by which it is one. The scratch's `half` has pod and port.
#[inline(always)]
fn is_called_already<V: Header>(call: &Tuple<V>, clock: &Clock, scratch: &mut Scratch<V>) -> bool {
    address_to_pod(call, scratch);
    let tuple = &mut scratch.tuple;
    if is_half(V::nat_in().get_ptr(&*tuple), SPARE, call, clock) {
        return true;
    }
    turn(tuple);
    is_half(V::nat_out().get_ptr(&*tuple), HOST_PORT, call, clock)
}

/// Has the host hold the tuple by which a packet, which is no pod's, leaves as the node from a HostPort's port: its answers would
/// be calls. `false`: somebody else has the tuple, be it a caller. Out of line.
#[inline(never)]
pub fn keep_from_callers<V: Header>(packet: &Packet<V>, config: &'static Config) -> bool {
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
fn give_to_host<V: Header>(packet: &Packet<V>, clock: &Clock, scratch: &mut Scratch<V>) -> u32 {
    address_to_pod(&packet.tuple, scratch);
    // Content if they are gone.
    let _ = V::nat_in().remove(&scratch.tuple);
    turn(&mut scratch.tuple);
    let _ = V::nat_out().remove(&scratch.tuple);
    let Tuple { destination, destination_port, .. } = packet.tuple;
    scratch.half = super::half(packet, clock, HOST, destination, destination_port);
    // It is there already, so there is room.
    let _ = V::nat_in().insert(&packet.tuple, &scratch.half, u64::from(BPF_ANY));
    0
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

/// Puts the pod and port that the port of the node that `tuple` goes to leads to into `half`. Out of line.
#[inline(never)]
fn find_target<V: Header>(tuple: &Tuple<V>, config: &Config, half: &mut Mapping<V>) -> bool {
    let mut wanted = HostPort {
        address: tuple.destination,
        port: tuple.destination_port,
        protocol: tuple.protocol,
        _pad: [0; 5],
    };
    let target = match maps::host_port::<V>(&wanted) {
        Some(target) => target,
        None => {
            wanted.address = bytemuck::Zeroable::zeroed();
            let Some(target) = maps::host_port::<V>(&wanted) else { return false };
            if !maps::is_nodes::<V>(config, &tuple.destination) {
                return false;
            }
            target
        }
    };
    half.address = target.address;
    half.port = target.port;
    true
}

/// Writes all halves of a flow that a caller's `packet` is of, or puts off their ends. The scratch's `half` has pod and port;
/// its `tuple` becomes what the packet becomes. 0, or what failed (numbers, since the verifier takes half of a small result in a
/// register for a broken pointer). Out of line.
#[inline(never)]
fn hold_halves<V: Apart>(
    packet: &Packet<V>,
    clock: &Clock,
    scratch: &mut Scratch<V>,
    is_new: bool,
) -> u32 {
    let Scratch { half, tuple, .. } = scratch;
    let fresh = super::half(packet, clock, HOST_PORT, half.address, half.port);
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

/// Makes a tuple that of the answers, in place.
#[inline(always)]
fn turn<V: Header>(tuple: &mut Tuple<V>) {
    core::mem::swap(&mut tuple.source, &mut tuple.destination);
    core::mem::swap(&mut tuple.source_port, &mut tuple.destination_port);
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
            let is_idle = held.kind == IDENTITY && (stage == Stage::Opening || stage.has_ended());
            if held.kind != 0 && !is_idle && !has_expired(held.expires_at, clock.low()) {
                return IN_USE;
            }
        }
    }
    if table.insert(key, half, u64::from(BPF_ANY)).is_ok()
        || (V::sweep(true) && table.insert(key, half, u64::from(BPF_ANY)).is_ok())
    {
        return 0;
    }
    NO_ROOM
}

/// Whether a packet answers a HostPort's call. Then the scratch's `tuple` is what it leaves as.
///
/// A flow whose halves have ended goes on while both are there and the port leads to the pod still: whom the pod answers knows the
/// node only. (Who calls the pod itself by that tuple takes them away.)
#[inline(always)]
pub fn answered<V: Header>(
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
    if half.kind == HOST_PORT {
        touch_half(out, packet, clock);
    } else {
        half.kind = HOST_PORT;
        touch(half, packet, clock);
        // Full: the next packet tries again.
        let _ = V::nat_out().insert(&packet.tuple, &*half, u64::from(BPF_ANY));
        report::count(skb, Counter::Healed);
    }
    touch_half(spare, packet, clock);
    touch_half(V::nat_in().get_ptr_mut(&*tuple), packet, clock);
    turn(tuple);
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

/// Whether a socket of the host's is connected by this tuple, rather than waiting for anybody's.
#[inline(always)]
fn has_connection<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    match tuple.protocol {
        TCP => is_connected_tcp(skb, tuple),
        UDP => is_connected_udp(skb, tuple),
        _ => false,
    }
}

/// `struct bpf_sock_tuple` is the tuple's first fields: addresses, then ports (include/uapi/linux/bpf.h).
const fn size_of_sock_tuple<V: Header>() -> u32 {
    (2 * size_of::<V::Address>() + 4) as u32
}

/// Two functions, since one load cannot be of two kinds of pointers.
#[inline(never)]
fn is_connected_tcp<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    /// `TCP_LISTEN` (include/net/tcp_states.h).
    const LISTEN: u32 = 10;
    let wanted = bytes_of(tuple).cast::<bpf_sock_tuple>().cast_mut();
    let (size, namespace) = (size_of_sock_tuple::<V>(), BPF_F_CURRENT_NETNS as i64 as u64);
    // SAFETY: `wanted` has `size` readable bytes; the socket is looked at before it is released.
    unsafe {
        let socket = helpers::bpf_skc_lookup_tcp(skb.raw(), wanted, size, namespace, 0);
        if socket.is_null() {
            return false;
        }
        let state = core::ptr::read_volatile(&raw const (*socket).state);
        helpers::bpf_sk_release(socket.cast());
        state != LISTEN
    }
}

/// See [`is_connected_tcp`].
#[inline(never)]
fn is_connected_udp<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    let wanted = bytes_of(tuple).cast::<bpf_sock_tuple>().cast_mut();
    let (size, namespace) = (size_of_sock_tuple::<V>(), BPF_F_CURRENT_NETNS as i64 as u64);
    // SAFETY: as above.
    unsafe {
        let socket = helpers::bpf_sk_lookup_udp(skb.raw(), wanted, size, namespace, 0);
        if socket.is_null() {
            return false;
        }
        let peer = core::ptr::read_volatile(&raw const (*socket).dst_port);
        helpers::bpf_sk_release(socket.cast());
        peer != 0
    }
}
