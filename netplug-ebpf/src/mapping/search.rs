//! Find the port that a flow leaves by.
//!
//! Candidates come in an order that the sender fixes: a socket is seen by one port from everywhere, where that is free. First
//! those are looked at that the flow may hold already (one half was lost), then the first free one is claimed. Free is a candidate
//! that no live mapping holds, that no cached flow answers to (hits do not keep a mapping young), and that no socket of the host's
//! uses.

use core::ffi::c_void;
use core::ptr::from_mut;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::decide::mapping_life::{Stage, has_expired};
use netplug_common::decide::opening::is_first;
use netplug_common::decide::port_choice::{
    CANDIDATES, FIRST_UNPRIVILEGED, is_privileged, privileged_candidate,
};
use netplug_common::hash;
use netplug_common::maps::config::{Config, HOST_PORTS};
use netplug_common::maps::host_port::HostPort;
use netplug_common::maps::nat::TRANSLATED;
use netplug_common::tuple::{Port, Tuple};

use crate::apart::Apart;
use crate::mapping::socket::has_socket;
use crate::mapping::{
    Clock, NO_ROOM, NONE_LEFT, half, is_half_of, is_sweep_due, keep, take, touch,
};
use crate::packet::{Header, Packet};
use crate::skb::Skb;
use crate::{atomic, maps, report};

/// Answer of [`try_port`]: another one.
const GO_ON: u32 = 0;
/// Option of [`try_port`]: only a port that the flow has already. Above every candidate's number.
const ADOPT: u32 = 1 << 16;
/// Option of [`try_port`]: the port of a connection that has closed, and holds it for a while after, may be had.
const URGENT: u32 = 1 << 17;

/// What the loops over candidates share.
struct Search<'a, V: Header> {
    skb: Skb,
    packet: &'a Packet<V>,
    address: &'a V::Address,
    options: u32,
    found: u32,
    depth: u32,
}

/// [`find`]'s port, and where none is quite free, one that has closed; in full maps what nobody misses makes room.
#[inline(always)]
pub fn port_for<V: Apart>(skb: Skb, packet: &Packet<V>, address: &V::Address) -> u32 {
    if is_sweep_due::<V>() {
        V::sweep(false);
    }
    let mut port = V::find_port(skb, packet, address, false);
    if port == NO_ROOM && V::sweep(true) {
        port = V::find_port(skb, packet, address, false);
    }
    if port == NONE_LEFT { V::find_port(skb, packet, address, true) } else { port }
}

/// The port for `packet`, adopted or claimed, in host order; its half in NAT_IN is written. Or [`NONE_LEFT`], [`NO_ROOM`].
/// `is_urgent`: nothing was found that is quite free. (A number, because the verifier takes half of an `Option<Port>` in a register for a broken pointer.)
#[inline(always)]
pub fn find<V: Apart>(skb: Skb, packet: &Packet<V>, address: &V::Address, is_urgent: bool) -> u32 {
    let mut search = Search { skb, packet, address, options: ADOPT, found: 0, depth: 0 };
    if !is_first(packet.tcp_flags) {
        // SAFETY: the verifier knows the pointer to be a value's. A stale number costs a look too few, after
        // which the same candidates are tried once more.
        let deepest = maps::nat_state::<V>().map_or(0, |state| unsafe { (*state).deepest });
        // Before the candidates, the flow's own port.
        search.over(deepest as u32 + 2);
        if search.found != GO_ON && search.found < NONE_LEFT {
            report::count(skb, netplug_common::counter::Counter::Healed);
            return search.found;
        }
        search.found = GO_ON;
    }
    search.options = if is_urgent { URGENT } else { 0 };
    search.over(CANDIDATES);
    if search.found == GO_ON {
        return NONE_LEFT;
    }
    if search.found < NONE_LEFT {
        note_depth::<V>(u64::from(search.depth));
        note_privileged::<V>(search.found);
    }
    search.found
}

/// Keeps the greatest depth. Gives way after some tries, which costs an adoption that this depth would have found.
#[inline(always)]
fn note_depth<V: Header>(depth: u64) {
    let Some(state) = maps::nat_state::<V>() else { return };
    let mut tries = 0;
    while tries < 8 {
        // SAFETY: the verifier knows the pointer to be a value's, and the field to be aligned.
        unsafe {
            let known = core::ptr::read_volatile(&raw const (*state).deepest);
            if known >= depth || atomic::exchange(&raw mut (*state).deepest, known, depth) {
                return;
            }
        }
        tries += 1;
    }
}

/// From then on, what comes and goes by privileged ports may be a pod's.
#[inline(always)]
pub(super) fn note_privileged<V: Header>(port: u32) {
    if port < u32::from(FIRST_UNPRIVILEGED)
        && let Some(state) = maps::nat_state::<V>()
    {
        // SAFETY: the verifier knows the pointer to be a value's; all write the same.
        unsafe { (*state).privileged = 1 };
    }
}

/// Whether masquerade may have given `port` to a pod.
#[inline(always)]
pub fn may_be_pods<V: Header>(config: &Config, port: Port) -> bool {
    if port.get() >= FIRST_UNPRIVILEGED {
        return config.may_be_pods(port);
    }
    // SAFETY: as above.
    maps::nat_state::<V>().is_some_and(|state| unsafe { (*state).privileged != 0 })
}

impl<V: Apart> Search<'_, V> {
    #[inline(always)]
    fn over(&mut self, count: u32) {
        let count = if count > CANDIDATES + 1 { CANDIDATES + 1 } else { count };
        // SAFETY: the callback gets this very struct, for as long as the call lasts (since Linux 5.17).
        unsafe {
            helpers::bpf_loop(count, step::<V> as *mut c_void, from_mut(self).cast(), 0);
        }
    }
}

/// The verifier follows what a loop calls again and again: so that is taken apart.
extern "C" fn step<V: Apart>(index: u32, search: *mut Search<'_, V>) -> i64 {
    // SAFETY: `over` passes its own struct.
    let search = unsafe { &mut *search };
    let found = V::try_port(search.skb, search.packet, search.address, index | search.options);
    if found == GO_ON {
        return 0;
    }
    search.found = found;
    search.depth = index;
    1
}

/// Tries candidate number `step` for `packet`, with the options that are added to that: the port, in host order, if the flow has
/// it now; or 0 for another one, [`NONE_LEFT`], [`NO_ROOM`].
#[inline(always)]
pub fn try_port<V: Header>(skb: Skb, packet: &Packet<V>, address: &V::Address, step: u32) -> u32 {
    let Some(config) = maps::config() else { return NONE_LEFT };
    let clock = Clock::outward(config);
    let tuple = &packet.tuple;
    let hash = hash::of_source(tuple, config.hash_key);
    // Masquerade could take it once, if it cannot now.
    let mut port = tuple.source_port;
    if step != ADOPT {
        let number = (step & (ADOPT - 1)) - u32::from(step & ADOPT != 0);
        port = if is_privileged(tuple.protocol, tuple.source_port) {
            let candidate = privileged_candidate(tuple.source_port, hash, number);
            if config.local_ports.contains(candidate.get()) {
                // What comes in by those is the host's, unlooked at.
                return GO_ON;
            }
            candidate
        } else {
            let candidate = config.masquerade_ports.candidate(tuple.source_port, hash, number);
            let Some(candidate) = candidate else { return NONE_LEFT };
            candidate
        };
    }
    let answers = Tuple {
        source: tuple.destination,
        destination: *address,
        source_port: tuple.destination_port,
        destination_port: port,
        protocol: tuple.protocol,
        _pad: [0; 3],
    };
    let outcome = if step & ADOPT != 0 {
        adopt(skb, packet, &answers, &clock)
    } else {
        claim(skb, packet, &answers, &clock, config, step & URGENT != 0)
    };
    match outcome {
        Outcome::Has => u32::from(port.get()),
        Outcome::HasNot => GO_ON,
        Outcome::NoRoom => NO_ROOM,
    }
}

/// Whether a flow has a port.
enum Outcome {
    Has,
    HasNot,
    NoRoom,
}

/// Whether the cached flow of `answers`, if one is alive, leads to the sender of `tuple`; `None` where there
/// is none.
#[inline(always)]
fn cached<V: Header>(answers: &Tuple<V>, tuple: &Tuple<V>, now: u64) -> Option<bool> {
    let flow = V::flows().get_ptr(answers)?;
    // SAFETY: the verifier knows the pointer to be a value's.
    unsafe {
        if (*flow).revisit_at <= now {
            return None;
        }
        Some(
            (*flow).left.destination == tuple.source
                && (*flow).left.destination_port == tuple.source_port,
        )
    }
}

/// Keeps a port that the flow holds already, or held before one half was lost.
#[inline(always)]
fn adopt<V: Header>(skb: Skb, packet: &Packet<V>, answers: &Tuple<V>, clock: &Clock) -> Outcome {
    let tuple = &packet.tuple;
    let is_ours = match V::nat_in().get_ptr_mut(answers) {
        // SAFETY: the verifier knows the pointer to be a value's.
        Some(half) => unsafe {
            is_half_of(&*half, tuple) && keep(skb, half, answers, clock) && {
                touch(half, packet, clock);
                true
            }
        },
        None => {
            cached(answers, tuple, clock.now) == Some(true) && {
                let half = half(packet, clock, TRANSLATED, tuple.source, tuple.source_port);
                V::nat_in().insert(answers, &half, u64::from(BPF_NOEXIST)).is_ok()
            }
        }
    };
    if is_ours { Outcome::Has } else { Outcome::HasNot }
}

/// Takes a port that is free.
#[inline(always)]
fn claim<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    answers: &Tuple<V>,
    clock: &Clock,
    config: &Config,
    is_urgent: bool,
) -> Outcome {
    let tuple = &packet.tuple;
    let held = V::nat_in().get_ptr_mut(answers);
    if let Some(known) = held {
        // SAFETY: the verifier knows the pointer to be a value's.
        let half = unsafe { &*known };
        let is_live = !has_expired(half.expires_at, clock.low());
        if is_live && is_half_of(half, tuple) {
            touch(known, packet, clock);
            return Outcome::Has;
        }
        let has_closed = is_urgent && Stage::of(half.stage).has_ended();
        if is_live && !has_closed {
            return Outcome::HasNot;
        }
        if has_closed {
            // What was learned of it leads to its pod still. Content if it is gone.
            let _ = V::flows().remove(answers);
        }
    }
    if cached(answers, tuple, clock.now) == Some(false)
        || has_socket(skb, answers)
        || is_host_port(config, answers)
    {
        return Outcome::HasNot;
    }
    let claim = match held {
        None => BPF_NOEXIST,
        Some(half) if take(half, clock, is_urgent) => BPF_ANY,
        Some(_) => return Outcome::HasNot,
    };
    let half = half(packet, clock, TRANSLATED, tuple.source, tuple.source_port);
    if V::nat_in().insert(answers, &half, u64::from(claim)).is_ok() {
        return Outcome::Has;
    }
    // Another CPU was first, perhaps with a packet of this very flow.
    // SAFETY: the verifier knows the pointer to be a value's.
    match V::nat_in().get_ptr(answers).map(|half| unsafe { is_half_of(&*half, tuple) }) {
        Some(true) => Outcome::Has,
        Some(false) => Outcome::HasNot,
        None => Outcome::NoRoom,
    }
}

/// Whether a port of the node leads to a pod, by this address or by any.
#[inline(always)]
pub fn is_host_port<V: Header>(config: &Config, answers: &Tuple<V>) -> bool {
    if config.flags & HOST_PORTS == 0 {
        return false;
    }
    let mut wanted = HostPort {
        address: answers.destination,
        port: answers.destination_port,
        protocol: answers.protocol,
        _pad: [0; 5],
    };
    if maps::host_port::<V>(&wanted).is_some() {
        return true;
    }
    wanted.address = bytemuck::Zeroable::zeroed();
    maps::host_port::<V>(&wanted).is_some()
}
