//! Fragments: only the first of a datagram has ports, and the others go where it went.
//!
//! # In order
//! What becomes of the first is noted in FRAGMENTS, and those that follow get its addresses.
//! # Out of order
//! One that comes before the first is kept in HELD, and goes on when the first has come. A kept one that comes from outside
//! goes to the host as well: it may be the host's own, which would not get it back from here.
//! # The first never comes
//! Nor does the datagram; what was kept for it is counted when its place is wanted.

use core::ffi::c_void;
use core::ptr::from_mut;

use aya_ebpf::bindings::{BPF_ANY, BPF_F_INGRESS, BPF_NOEXIST};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::has_expired;
use netplug_common::maps::HELD;
use netplug_common::maps::fragment::{AWAITED, FRAME, Held, KNOWN};
use netplug_common::tuple::Tuple;

use crate::mapping::Clock;
use crate::maps::Scratch;
use crate::packet::rewrite::readdress;
use crate::packet::{Header, Packet};
use crate::skb::{Skb, opaque};
use crate::{atomic, maps, report};

/// Seconds that a datagram has to come together: `ip_frag_time` (net/ipv4/ip_fragment.c).
const SECONDS: u32 = 30;
/// What tags of frames that wait have, and that of a first fragment put aside has not.
const WAITS: u64 = 1 << 63;
/// The longest frame that is kept, as helpers take it.
const LONGEST: u32 = FRAME as u32;

/// Which datagram `packet`, a fragment that came with the addresses of `entered`, is of. In this CPU's scratch, which is not
/// used for anything else before the packet goes on.
#[inline(always)]
fn datagram<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    entered: &Tuple<V>,
    clock: &Clock,
) -> Option<&'static mut Scratch<V>> {
    let (id, protocol) = V::fragment(skb, packet.fragment)?;
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let scratch = unsafe { &mut *V::scratch()? };
    scratch.datagram.source = entered.source;
    scratch.datagram.destination = entered.destination;
    scratch.datagram.id = id;
    scratch.datagram.protocol = protocol;
    scratch.datagram.enters = u8::from(clock.is_inward);
    scratch.datagram._pad = [0; 2];
    Some(scratch)
}

/// Notes what has become of a first fragment that had `entered` as such. What came before it goes on behind it, if
/// `is_to_go_on`; else it has gone on already. After an error the packet is not whole.
#[inline(always)]
pub fn note_first<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    entered: &Tuple<V>,
    clock: &Clock,
    is_to_go_on: bool,
) -> Result<(), Counter> {
    let Some(scratch) = datagram(skb, packet, entered, clock) else { return Ok(()) };
    let is_awaited = match V::fragments().get_ptr(&scratch.datagram) {
        // SAFETY: the verifier knows the pointer to be a value's.
        Some(fate) => unsafe { (*fate).state == AWAITED },
        None => false,
    };
    scratch.fate.source = packet.tuple.source;
    scratch.fate.destination = packet.tuple.destination;
    scratch.fate.expires_at = clock.after(SECONDS);
    scratch.fate.state = KNOWN;
    // Where it fails the others are missing it.
    let _ = V::fragments().insert(&scratch.datagram, &scratch.fate, u64::from(BPF_ANY));
    if is_awaited {
        let direction = if clock.is_inward { BPF_F_INGRESS } else { 0 };
        return release(skb, scratch.datagram.tag(), clock.low(), direction, is_to_go_on);
    }
    Ok(())
}

/// Gives a later fragment the addresses of its datagram's first. `false`: that is not known.
#[inline(always)]
pub fn follow<V: Header>(skb: Skb, packet: &mut Packet<V>, clock: &Clock) -> Result<bool, Counter> {
    let Some(scratch) = datagram(skb, packet, &packet.tuple, clock) else { return Ok(false) };
    let Some(fate) = V::fragments().get_ptr(&scratch.datagram) else { return Ok(false) };
    // SAFETY: the verifier knows the pointer to be a value's. Elements change hands at once: a fragment with another's
    // addresses is part of no datagram there.
    let fate = unsafe { &*fate };
    if fate.state != KNOWN || has_expired(fate.expires_at, clock.low()) {
        return Ok(false);
    }
    readdress(skb, packet, &fate.source, &fate.destination).map_err(|()| Counter::RewriteFailed)?;
    Ok(true)
}

/// Keeps a later fragment until its datagram's first has come. `false`: it is too long.
#[inline(always)]
pub fn keep_later<V: Header>(skb: Skb, packet: &Packet<V>, clock: &Clock) -> bool {
    let Some(scratch) = datagram(skb, packet, &packet.tuple, clock) else { return false };
    let expires_at = clock.after(SECONDS);
    if keep(skb, scratch.datagram.tag(), expires_at).is_none() {
        return false;
    }
    scratch.fate.source = packet.tuple.source;
    scratch.fate.destination = packet.tuple.destination;
    scratch.fate.expires_at = expires_at;
    scratch.fate.state = AWAITED;
    match V::fragments().get_ptr_mut(&scratch.datagram) {
        // An older datagram's, of the same identification.
        // SAFETY: as above; a first fragment that comes meanwhile is awaited once more, and what follows it kept in vain.
        Some(known) if unsafe { has_expired((*known).expires_at, clock.low()) } => unsafe {
            (*known).state = AWAITED;
            (*known).expires_at = expires_at;
        },
        Some(_) => {}
        None => {
            // It fails where another CPU was first.
            let _ = V::fragments().insert(&scratch.datagram, &scratch.fate, u64::from(BPF_NOEXIST));
        }
    }
    true
}

/// Copies the packet to a place in HELD.
#[inline(always)]
fn keep(skb: Skb, tag: u64, expires_at: u32) -> Option<*mut Held> {
    let length = opaque(skb.length());
    if length == 0 {
        return None;
    }
    let length = opaque(length);
    if length > LONGEST {
        return None;
    }
    let place = maps::held(next_place()?)?;
    // SAFETY: the verifier knows the pointer to be a value's. A place that two CPUs write at once is worth nothing to either:
    // it takes 128 fragments, meanwhile.
    unsafe {
        if (*place).tag & WAITS != 0 {
            report::count_many(Counter::FirstMissing, 1);
        }
        (*place).tag = 0;
        let to = (&raw mut (*place).frame).cast::<c_void>();
        if helpers::bpf_skb_load_bytes(skb.raw(), 0, to, length) != 0 {
            return None;
        }
        (*place).length = length;
        (*place).expires_at = expires_at;
        (*place).tag = tag;
    }
    Some(place)
}

/// Places are used in turn.
#[inline(always)]
fn next_place() -> Option<u32> {
    let state = maps::nat_state::<netplug_common::ip::V4>()?;
    let mut tries = 0;
    while tries < 4 {
        // SAFETY: the verifier knows the pointer to be a value's, and the field to be aligned.
        unsafe {
            let turn = &raw mut (*state).held;
            let now = core::ptr::read_volatile(turn);
            if atomic::exchange(turn, now, now + 1) {
                return Some((now % u64::from(HELD)) as u32);
            }
        }
        tries += 1;
    }
    None
}

/// What the loop over HELD goes by.
struct Release {
    skb: Skb,
    tag: u64,
    now: u32,
    direction: u32,
    is_to_go_on: bool,
}

/// Has all that is kept under `tag` go on, or forgets it. The packet in hand is put aside meanwhile, since a frame can only be
/// sent by making a packet that there is into it.
#[inline(always)]
fn release(skb: Skb, tag: u64, now: u32, direction: u32, is_to_go_on: bool) -> Result<(), Counter> {
    let mut aside = None;
    // Told apart from what another CPU may put there meanwhile.
    // SAFETY: takes nothing.
    let own_tag = unsafe { helpers::bpf_ktime_get_ns() } & !WAITS | 1;
    if is_to_go_on {
        aside = keep(skb, own_tag, now);
        if aside.is_none() {
            return Ok(());
        }
    }
    let mut release = Release { skb, tag, now, direction, is_to_go_on };
    // SAFETY: the callback gets this very struct (since Linux 5.17).
    unsafe { helpers::bpf_loop(HELD, send as *mut c_void, from_mut(&mut release).cast(), 0) };
    match aside {
        Some(first) => {
            let is_back = become_frame(skb, first).is_ok();
            // SAFETY: the verifier knows the pointer to be a value's; volatile, so that it is read here.
            let is_its_own =
                unsafe { core::ptr::read_volatile(&raw const (*first).tag) } == own_tag;
            if is_back && is_its_own { Ok(()) } else { Err(Counter::RewriteFailed) }
        }
        None => Ok(()),
    }
}

extern "C" fn send(place: u32, release: *mut Release) -> i64 {
    // SAFETY: `release` passes its own struct.
    let release = unsafe { &mut *release };
    let Some(held) = maps::held(place) else { return 1 };
    // SAFETY: the verifier knows the pointer to be a value's.
    let is_ours = unsafe {
        (*held).tag == release.tag && atomic::exchange(&raw mut (*held).tag, release.tag, 0)
    };
    // SAFETY: as above.
    if !is_ours || !release.is_to_go_on || unsafe { has_expired((*held).expires_at, release.now) } {
        return 0;
    }
    let skb = release.skb;
    if become_frame(skb, held).is_err() {
        return 0;
    }
    // SAFETY: the context is valid.
    let failed =
        unsafe { helpers::bpf_clone_redirect(skb.0, skb.ifindex(), u64::from(release.direction)) };
    if failed == 0 {
        report::count(skb, Counter::FragmentReleased);
    }
    0
}

/// Makes the packet in hand the frame that is kept.
#[inline(always)]
fn become_frame(skb: Skb, held: *const Held) -> Result<(), ()> {
    // SAFETY: the verifier knows the pointer to be a value's.
    let length = opaque(unsafe { (*held).length });
    if length == 0 {
        return Err(());
    }
    let length = opaque(length);
    if length > LONGEST {
        return Err(());
    }
    // SAFETY: the context is valid.
    if unsafe { helpers::bpf_skb_change_tail(skb.0, length, 0) } != 0 {
        return Err(());
    }
    // SAFETY: as above; a frame has `length` readable bytes.
    skb.store_summed(0, unsafe { (&raw const (*held).frame).cast() }, length)
}
