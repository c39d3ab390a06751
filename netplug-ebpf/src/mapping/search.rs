//! Find the port that a flow leaves by.
//!
//! Candidates come in an order that the tuple fixes. First those are looked at that the flow may hold already
//! (one half was lost), then the first free one is claimed. Free is a candidate that no live mapping holds, that
//! no cached flow answers to (hits do not keep a mapping young), and that no socket of the host's uses.

use core::ffi::c_void;
use core::ptr::from_mut;

use aya_ebpf::bindings::{BPF_ANY, BPF_F_CURRENT_NETNS, BPF_NOEXIST, bpf_sock_tuple};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::decide::mapping_life::{Stage, has_expired};
use netplug_common::decide::opening::is_first;
use netplug_common::decide::port_choice::CANDIDATES;
use netplug_common::hash;
use netplug_common::maps::config::{Config, HOST_PORTS};
use netplug_common::maps::host_port::HostPort;
use netplug_common::maps::nat::TRANSLATED;
use netplug_common::tuple::{Port, TCP, Tuple, UDP};

use crate::mapping::{Clock, NO_ROOM, NONE_LEFT, half, is_half_of, keep, take, touch};
use crate::packet::{Header, Packet};
use crate::skb::{Skb, bytes_of};
use crate::{atomic, maps, report};

/// What the loops over candidates share. Plain values and the context only: the verifier follows it by the stack.
struct Search<'a, V: Header> {
    skb: Skb,
    packet: &'a Packet<V>,
    config: &'a Config,
    clock: &'a Clock,
    address: &'a V::Address,
    hash: u32,
    found: u32,
    depth: u32,
    is_full: bool,
    /// Whether the port of a connection that has closed, and holds it for a while after, may be had.
    is_urgent: bool,
}

/// The port for `packet`, adopted or claimed, in host order; its half in NAT_IN is written. Or [`NONE_LEFT`], [`NO_ROOM`].
/// `is_urgent`: nothing was found that is quite free. (A number, because the verifier takes half of an `Option<Port>` in a register for a broken pointer.)
#[inline(always)]
pub fn find<V: Header>(skb: Skb, packet: &Packet<V>, address: &V::Address, is_urgent: bool) -> u32 {
    let Some(config) = maps::config() else { return NONE_LEFT };
    let clock = &Clock::outward(config);
    let hash = hash::of(&packet.tuple, config.hash_key);
    let mut search = Search {
        skb,
        packet,
        config,
        clock,
        address,
        hash,
        found: 0,
        depth: 0,
        is_full: false,
        is_urgent,
    };
    if !is_first(packet.tcp_flags) {
        // SAFETY: the verifier knows the pointer to be a value's. A stale number costs a look too few, after
        // which the same candidates are tried once more.
        let deepest = maps::nat_state::<V>().map_or(0, |state| unsafe { (*state).deepest });
        search.over(deepest as u32 + 1, adopt::<V>);
        if search.found != 0 {
            report::count(skb, netplug_common::counter::Counter::Healed);
            return search.found;
        }
    }
    search.over(CANDIDATES, claim::<V>);
    if search.found == 0 {
        return if search.is_full { NO_ROOM } else { NONE_LEFT };
    }
    note_depth::<V>(u64::from(search.depth));
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

impl<V: Header> Search<'_, V> {
    #[inline(always)]
    fn over(&mut self, count: u32, step: extern "C" fn(u32, *mut Self) -> i64) {
        let count = if count > CANDIDATES { CANDIDATES } else { count };
        // SAFETY: the callback gets this very struct, for as long as the call lasts (since Linux 5.17).
        unsafe { helpers::bpf_loop(count, step as *mut c_void, from_mut(self).cast(), 0) };
    }

    /// The port to be tried; `answers` becomes the tuple of its answers. (Filled in place: what is returned stands on the
    /// stack twice.)
    #[inline(always)]
    fn candidate(&self, index: u32, answers: &mut Tuple<V>) -> Option<Port> {
        let tuple = &self.packet.tuple;
        let port = self.config.masquerade_ports.candidate(tuple.source_port, self.hash, index)?;
        answers.source = tuple.destination;
        answers.destination = *self.address;
        answers.source_port = tuple.destination_port;
        answers.destination_port = port;
        answers.protocol = tuple.protocol;
        Some(port)
    }
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

const GO_ON: i64 = 0;
const STOP: i64 = 1;

extern "C" fn adopt<V: Header>(index: u32, search: *mut Search<'_, V>) -> i64 {
    // SAFETY: `over` passes its own struct.
    let search = unsafe { &mut *search };
    let tuple = &search.packet.tuple;
    let mut answers = bytemuck::Zeroable::zeroed();
    let Some(port) = search.candidate(index, &mut answers) else { return STOP };
    let is_ours = match V::nat_in().get_ptr_mut(&answers) {
        // SAFETY: the verifier knows the pointer to be a value's.
        Some(half) => unsafe {
            is_half_of(&*half, tuple) && keep(search.skb, half, &answers, search.clock) && {
                touch(half, search.packet, search.clock);
                true
            }
        },
        None => {
            cached(&answers, tuple, search.clock.now) == Some(true) && {
                let half =
                    half(search.packet, search.clock, TRANSLATED, tuple.source, tuple.source_port);
                V::nat_in().insert(&answers, &half, u64::from(BPF_NOEXIST)).is_ok()
            }
        }
    };
    if is_ours {
        search.found = u32::from(port.get());
        STOP
    } else {
        GO_ON
    }
}

extern "C" fn claim<V: Header>(index: u32, search: *mut Search<'_, V>) -> i64 {
    // SAFETY: `over` passes its own struct.
    let search = unsafe { &mut *search };
    let tuple = &search.packet.tuple;
    let mut answers = bytemuck::Zeroable::zeroed();
    let Some(port) = search.candidate(index, &mut answers) else { return STOP };
    let held = V::nat_in().get_ptr_mut(&answers);
    if let Some(known) = held {
        // SAFETY: the verifier knows the pointer to be a value's.
        let half = unsafe { &*known };
        let is_live = !has_expired(half.expires_at, search.clock.low());
        if is_live && is_half_of(half, tuple) {
            touch(known, search.packet, search.clock);
            search.found = u32::from(port.get());
            return STOP;
        }
        let has_closed = search.is_urgent && Stage::of(half.stage).has_ended();
        if is_live && !has_closed {
            return GO_ON;
        }
        if has_closed {
            // What was learned of it leads to its pod still. Content if it is gone.
            let _ = V::flows().remove(&answers);
        }
    }
    if cached(&answers, tuple, search.clock.now) == Some(false)
        || has_socket(search.skb, &answers)
        || is_host_port(search.config, &answers)
    {
        return GO_ON;
    }
    let claim = match held {
        None => BPF_NOEXIST,
        Some(half) if take(half, search.clock, search.is_urgent) => BPF_ANY,
        Some(_) => return GO_ON,
    };
    let half = half(search.packet, search.clock, TRANSLATED, tuple.source, tuple.source_port);
    if V::nat_in().insert(&answers, &half, u64::from(claim)).is_err() {
        // Another CPU was first, perhaps with a packet of this very flow.
        // SAFETY: the verifier knows the pointer to be a value's.
        match V::nat_in().get_ptr(&answers).map(|half| unsafe { is_half_of(&*half, tuple) }) {
            Some(true) => {}
            Some(false) => return GO_ON,
            None => {
                search.is_full = true;
                return STOP;
            }
        }
    }
    search.found = u32::from(port.get());
    search.depth = index;
    STOP
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

/// Whether a socket of the host's would receive a packet of this tuple.
#[inline(always)]
pub fn has_socket<V: Header>(skb: Skb, tuple: &Tuple<V>) -> bool {
    // `struct bpf_sock_tuple` is the tuple's first fields: addresses, then ports (include/uapi/linux/bpf.h).
    let size = (2 * size_of::<V::Address>() + 4) as u32;
    let namespace = BPF_F_CURRENT_NETNS as i64 as u64;
    let wanted = bytes_of(tuple).cast::<bpf_sock_tuple>().cast_mut();
    // SAFETY: `wanted` has `size` readable bytes; a socket that is found is released.
    unsafe {
        let socket = match tuple.protocol {
            TCP => helpers::bpf_skc_lookup_tcp(skb.raw(), wanted, size, namespace, 0),
            UDP => helpers::bpf_sk_lookup_udp(skb.raw(), wanted, size, namespace, 0),
            _ => return false,
        };
        if socket.is_null() {
            return false;
        }
        helpers::bpf_sk_release(socket.cast());
        true
    }
}
