//! Mappings: who holds which port of an uplink's address. Used by the masquerade stage only.
//!
//! A mapping is two entries, and each heals the other: whoever finds one half writes the missing one. A half
//! of NAT_IN that is missed while the pod is silent is found again in NAT_OUT (`rebuild`).

mod rebuild;
mod search;

pub use rebuild::rebuild;
pub use search::{find, has_socket};

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::{Stage, has_expired, next, seconds};
use netplug_common::maps::config::Config;
use netplug_common::maps::nat::{IDENTITY, Mapping, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use crate::apart::Apart;
use crate::atomic;
use crate::packet::{Header, Packet};
use crate::report;
use crate::skb::Skb;

/// The time, as mappings have it.
pub struct Clock {
    /// Now, in jiffies.
    pub now: u64,
    per_second: u64,
}

impl Clock {
    /// The time now.
    #[inline(always)]
    pub fn new(config: &Config) -> Self {
        // SAFETY: takes nothing.
        let now = unsafe { helpers::bpf_jiffies64() };
        Self { now, per_second: config.jiffies_per_second }
    }

    /// The low 32 bits of jiffies, by which mappings expire.
    #[inline(always)]
    pub fn low(&self) -> u32 {
        self.now as u32
    }

    #[inline(always)]
    fn after(&self, seconds: u32) -> u32 {
        (self.now + u64::from(seconds) * self.per_second) as u32
    }
}

/// Puts off the end of a mapping that `packet` belongs to.
#[inline(always)]
fn touch<V: Header>(mapping: *mut Mapping<V>, packet: &Packet<V>, clock: &Clock) {
    // SAFETY: the verifier knows the pointer to be a value's. Two CPUs may write at once; either is right.
    unsafe {
        let stage =
            next(Some(Stage::of((*mapping).stage)), packet.tuple.protocol, packet.tcp_flags);
        (*mapping).stage = stage as u8;
        (*mapping).expires_at = clock.after(seconds(packet.tuple.protocol, stage));
    }
}

/// Has the port of an expired half for its finder; `false` if another was first, or its holder came back.
#[inline(always)]
fn take<V: Header>(half: *mut Mapping<V>, clock: &Clock) -> bool {
    let head = Head::of(half);
    has_expired(head.expires_at(), clock.low()) && head.becomes(half, clock, 0)
}

/// Keeps the port of a half for its holder, as long as nobody has taken it.
#[inline(always)]
fn keep<V: Header>(half: *mut Mapping<V>, clock: &Clock) -> bool {
    let head = Head::of(half);
    head.kind() == TRANSLATED
        && (!has_expired(head.expires_at(), clock.low()) || head.becomes(half, clock, TRANSLATED))
}

/// A half's `expires_at`, `port`, `kind` and `stage`, read at once (the target is little endian).
struct Head(u64);

impl Head {
    #[inline(always)]
    fn of<V: Header>(half: *const Mapping<V>) -> Self {
        // SAFETY: the verifier knows the pointer to be a value's, and the kernel aligns values to 8 bytes.
        Self(unsafe { core::ptr::read_volatile(half.cast()) })
    }

    #[inline(always)]
    fn expires_at(&self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    fn kind(&self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Lets the half live for a second as `kind`, if its head is still this one.
    #[inline(always)]
    fn becomes<V: Header>(&self, half: *mut Mapping<V>, clock: &Clock, kind: u8) -> bool {
        let kept = self.0 & 0xff00_ffff_0000_0000;
        let next = kept | u64::from(kind) << 48 | u64::from(clock.after(1));
        // SAFETY: as in `of`.
        unsafe { atomic::exchange(half.cast(), self.0, next) }
    }
}

/// A fresh half for `packet`'s flow.
#[inline(always)]
fn half<V: Header>(
    packet: &Packet<V>,
    clock: &Clock,
    kind: u8,
    address: V::Address,
    port: Port,
) -> Mapping<V> {
    let stage = next(None, packet.tuple.protocol, packet.tcp_flags);
    let expires_at = clock.after(seconds(packet.tuple.protocol, stage));
    Mapping { address, expires_at, port, kind, stage: stage as u8 }
}

/// Answer of [`source_for`]: the packet leaves as it is.
pub const AS_IT_IS: u32 = 0;
/// Answer of [`source_for`]: no port is left.
pub const NONE_LEFT: u32 = 1 << 16;

/// The source port, in host order, that a packet leaving as `address` gets; or [`AS_IT_IS`], [`NONE_LEFT`].
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
        if mapping.kind == IDENTITY {
            touch(known, packet, clock);
            return AS_IT_IS;
        }
        if mapping.address == *address && holds(packet, clock, &mapping) {
            touch(known, packet, clock);
            return u32::from(mapping.port.get());
        }
    } else if is_answer(packet) {
        write_identity_out(packet, clock);
        report::count(skb, Counter::Healed);
        return AS_IT_IS;
    }
    let port = V::find_port(skb, packet, address);
    if port == 0 {
        return NONE_LEFT;
    }
    let mapping = half(packet, clock, TRANSLATED, *address, Port::new(port as u16));
    // Full, or taken away at once by another CPU: the next packet finds NAT_IN and writes it again.
    let _ = V::nat_out().insert(&packet.tuple, &mapping, u64::from(BPF_ANY));
    port
}

/// Whether NAT_IN agrees with NAT_OUT's `mapping` of `packet`; written again where it is missing.
#[inline(always)]
fn holds<V: Header>(packet: &Packet<V>, clock: &Clock, mapping: &Mapping<V>) -> bool {
    let answers = answers_to(&packet.tuple, mapping);
    match V::nat_in().get_ptr_mut(&answers) {
        Some(other) => {
            // SAFETY: the verifier knows the pointer to be a value's.
            let is_ours = unsafe { is_half_of(&*other, &packet.tuple) };
            if is_ours && keep(other, clock) {
                touch(other, packet, clock);
                return true;
            }
            false
        }
        None => {
            let other =
                half(packet, clock, TRANSLATED, packet.tuple.source, packet.tuple.source_port);
            V::nat_in().insert(&answers, &other, u64::from(BPF_NOEXIST)).is_ok()
        }
    }
}

/// The tuple under which answers to a mapped packet arrive.
#[inline(always)]
fn answers_to<V: Header>(tuple: &Tuple<V>, mapping: &Mapping<V>) -> Tuple<V> {
    Tuple { source: mapping.address, source_port: mapping.port, ..*tuple }.reversed()
}

/// Whether a half in NAT_IN leads to the sender of `tuple`.
#[inline(always)]
fn is_half_of<V: Header>(half: &Mapping<V>, tuple: &Tuple<V>) -> bool {
    half.kind == TRANSLATED && half.address == tuple.source && half.port == tuple.source_port
}

/// Whether a packet answers one that came in to the pod's own address.
#[inline(always)]
fn is_answer<V: Header>(packet: &Packet<V>) -> bool {
    // SAFETY: the verifier knows the pointer to be a value's.
    V::nat_in()
        .get_ptr(packet.tuple.reversed())
        .is_some_and(|half| unsafe { (*half).kind } == IDENTITY)
}

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
}

/// Looks a packet from outside up; `to` becomes what it is to be translated to. Writes NAT_OUT again where it is
/// missing.
#[inline(always)]
pub fn inbound<V: Header>(skb: Skb, packet: &Packet<V>, clock: &Clock, to: &mut Tuple<V>) -> Found {
    let Some(known) = V::nat_in().get_ptr_mut(&packet.tuple) else { return Found::Nothing };
    touch(known, packet, clock);
    // SAFETY: the verifier knows the pointer to be a value's.
    let mapping = unsafe { *known };
    if mapping.kind == IDENTITY {
        write_identity_out_reversed(packet, clock);
        return Found::Identity;
    }
    to.destination = mapping.address;
    to.destination_port = mapping.port;
    let sent = to.reversed();
    match V::nat_out().get_ptr_mut(&sent) {
        Some(other) => touch(other, packet, clock),
        None => {
            let tuple = &packet.tuple;
            let other = half(packet, clock, TRANSLATED, tuple.destination, tuple.destination_port);
            if V::nat_out().insert(&sent, &other, u64::from(BPF_NOEXIST)).is_ok() {
                report::count(skb, Counter::Healed);
            }
        }
    }
    Found::Translation
}

/// Notes that a packet from outside called a pod by its own address: neither it nor the answers are translated.
#[inline(always)]
pub fn write_identity<V: Header>(packet: &Packet<V>, clock: &Clock) {
    let tuple = &packet.tuple;
    let out = half(packet, clock, IDENTITY, tuple.destination, tuple.destination_port);
    let answer = tuple.reversed();
    // A flow that is masqueraded already stays so; a full map costs the answers a masquerade, as it would with
    // the kernel's.
    if V::nat_out().insert(&answer, &out, u64::from(BPF_NOEXIST)).is_ok() || is_identity(&answer) {
        let _ = V::nat_in().insert(tuple, &out, u64::from(BPF_NOEXIST));
    }
}

#[inline(always)]
fn is_identity<V: Header>(sent: &Tuple<V>) -> bool {
    // SAFETY: the verifier knows the pointer to be a value's.
    V::nat_out().get_ptr(sent).is_some_and(|half| unsafe { (*half).kind } == IDENTITY)
}

#[inline(always)]
fn write_identity_out<V: Header>(packet: &Packet<V>, clock: &Clock) {
    let tuple = &packet.tuple;
    let out = half(packet, clock, IDENTITY, tuple.source, tuple.source_port);
    // Full: the next answer tries again.
    let _ = V::nat_out().insert(tuple, &out, u64::from(BPF_NOEXIST));
}

#[inline(always)]
fn write_identity_out_reversed<V: Header>(packet: &Packet<V>, clock: &Clock) {
    let tuple = &packet.tuple;
    let out = half(packet, clock, IDENTITY, tuple.destination, tuple.destination_port);
    match V::nat_out().get_ptr_mut(tuple.reversed()) {
        Some(known) => touch(known, packet, clock),
        // Full: the next packet tries again.
        None => drop(V::nat_out().insert(&tuple.reversed(), &out, u64::from(BPF_NOEXIST))),
    }
}
