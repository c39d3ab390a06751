//! Mappings: who holds which port of an uplink's address. Used by the masquerade stage only.
//!
//! A mapping is two entries, and each heals the other: whoever finds one half writes the missing one, as long as there is
//! a pod of that address. A half of NAT_IN that is missed while the pod is silent is found again in NAT_OUT (`rebuild`).
//! One that has ended counts for nothing, until a packet of its pod's takes it up again.
//!
//! What the host's own NAT sends by an uplink's address holds its port in NAT_IN too (`reserve`): masquerade does not
//! take it, and answers are not taken for a pod's.

mod rebuild;
mod search;

pub use rebuild::rebuild;
pub use search::{find, has_socket};

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::{Stage, has_expired, next, seconds};
use netplug_common::maps::config::Config;
use netplug_common::maps::nat::{HOST, IDENTITY, Mapping, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use crate::apart::Apart;
use crate::atomic;
use crate::maps::{self, Mappings};
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

/// Keeps the port of a half for its holder, as long as nobody has taken it: when it has ended, a socket of the host's may
/// have, too.
#[inline(always)]
fn keep<V: Header>(skb: Skb, half: *mut Mapping<V>, answers: &Tuple<V>, clock: &Clock) -> bool {
    let head = Head::of(half);
    if head.kind() != TRANSLATED {
        return false;
    }
    !has_expired(head.expires_at(), clock.low())
        || (!has_socket(skb, answers) && head.becomes(half, clock, TRANSLATED))
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
        report::count(skb, Counter::Healed);
        return AS_IT_IS;
    }
    let port = V::find_port(skb, packet, address);
    if port == 0 {
        return NONE_LEFT;
    }
    write_translation_out(packet, clock, address, port);
    port
}

/// Out of line, as `reserve`.
#[inline(never)]
fn write_translation_out<V: Header>(
    packet: &Packet<V>,
    clock: &Clock,
    address: &V::Address,
    port: u32,
) {
    let mapping = half(packet, clock, TRANSLATED, *address, Port::new(port as u16));
    // Full, or taken away at once by another CPU: the next packet finds NAT_IN and writes it again.
    let _ = V::nat_out().insert(&packet.tuple, &mapping, u64::from(BPF_ANY));
}

/// Whether NAT_IN agrees with NAT_OUT's `mapping` of `packet`; written again where it is missing. Out of line, as `reserve`.
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
            let other =
                half(packet, clock, TRANSLATED, packet.tuple.source, packet.tuple.source_port);
            V::nat_in().insert(&answers, &other, u64::from(BPF_NOEXIST)).is_ok()
        }
    }
}

/// The tuple under which answers to a mapped packet arrive.
#[inline(always)]
fn answers_to<V: Header>(tuple: &Tuple<V>, mapping: &Mapping<V>) -> Tuple<V> {
    Tuple {
        source: tuple.destination,
        destination: mapping.address,
        source_port: tuple.destination_port,
        destination_port: mapping.port,
        protocol: tuple.protocol,
        _pad: [0; 3],
    }
}

/// Whether a half in NAT_IN leads to the sender of `tuple`.
#[inline(always)]
fn is_half_of<V: Header>(half: &Mapping<V>, tuple: &Tuple<V>) -> bool {
    half.kind == TRANSLATED && half.address == tuple.source && half.port == tuple.source_port
}

/// Whether a packet answers one that came in to the pod's own address.
#[inline(always)]
fn is_answer<V: Header>(packet: &Packet<V>, clock: &Clock) -> bool {
    let Some(half) = V::nat_in().get_ptr(packet.tuple.reversed()) else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    unsafe { (*half).kind == IDENTITY && !has_expired((*half).expires_at, clock.low()) }
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
    // SAFETY: the verifier knows the pointer to be a value's.
    let mapping = unsafe { *known };
    // LRU elements change hands at once, also under a reader's: it was this tuple's all the while only if it still is.
    let is_still = V::nat_in().get_ptr_mut(&packet.tuple) == Some(known);
    if !is_still || has_expired(mapping.expires_at, clock.low()) {
        return Found::Nothing;
    }
    if mapping.kind == HOST {
        touch(known, packet, clock);
        return Found::Identity;
    }
    // A pod that is being deleted is no reason to write what DEL removes.
    if maps::endpoint::<V>(&mapping.address).is_none() {
        return Found::Nothing;
    }
    touch(known, packet, clock);
    if mapping.kind == IDENTITY {
        write_out(&packet.tuple.reversed(), packet, clock, IDENTITY);
        return Found::Identity;
    }
    to.destination = mapping.address;
    to.destination_port = mapping.port;
    if write_out(&to.reversed(), packet, clock, TRANSLATED) {
        report::count(skb, Counter::Healed);
    }
    Found::Translation
}

/// Puts off the end of the half in NAT_OUT of what the pod sends as `sent`, where `packet` is an answer to it that has not
/// been translated back; writes it where it is missing, and then returns `true`. What NAT_IN says of the flow counts.
#[inline(always)]
fn write_out<V: Header>(sent: &Tuple<V>, packet: &Packet<V>, clock: &Clock, kind: u8) -> bool {
    if let Some(known) = V::nat_out().get_ptr_mut(sent)
        // SAFETY: the verifier knows the pointer to be a value's.
        && unsafe { (*known).kind } == kind
    {
        touch(known, packet, clock);
        return false;
    }
    let Tuple { destination, destination_port, .. } = packet.tuple;
    let out = half(packet, clock, kind, destination, destination_port);
    // Full: the next packet tries again.
    V::nat_out().insert(sent, &out, u64::from(BPF_ANY)).is_ok()
}

/// Notes that `packet`, which the host hands to a pod, came in from outside to the pod's own address: answers are not
/// translated. Out of line, as `reserve`.
#[inline(never)]
pub fn write_identity<V: Header>(packet: &Packet<V>, clock: &Clock) {
    let tuple = &packet.tuple;
    let answer = tuple.reversed();
    // A flow that is masqueraded stays so.
    if keep_identity(
        V::nat_out(),
        &answer,
        &tuple.destination,
        tuple.destination_port,
        packet,
        clock,
    ) {
        keep_identity(
            V::nat_in(),
            tuple,
            &tuple.destination,
            tuple.destination_port,
            packet,
            clock,
        );
    }
}

/// Puts off the end of one half of an identity, or writes it: at `key`, for the pod's `address` and `port`. `false`: there is
/// a translation, and it has not ended.
#[inline(always)]
fn keep_identity<V: Header>(
    table: &Mappings<V>,
    key: &Tuple<V>,
    address: &V::Address,
    port: Port,
    packet: &Packet<V>,
    clock: &Clock,
) -> bool {
    if let Some(known) = table.get_ptr_mut(key) {
        // SAFETY: the verifier knows the pointer to be a value's.
        let (kind, expires_at) = unsafe { ((*known).kind, (*known).expires_at) };
        let has_ended = has_expired(expires_at, clock.low());
        if kind == IDENTITY && !has_ended {
            touch(known, packet, clock);
            return true;
        }
        if !has_ended {
            return false;
        }
    }
    // A full map costs the answers a masquerade, as it would with the kernel's.
    let _ = table.insert(key, &half(packet, clock, IDENTITY, *address, port), u64::from(BPF_ANY));
    true
}

/// Has the host hold the port that `packet`, which its NAT sends by an uplink's address, leaves by. `false`: a pod holds it.
/// Out of line: the search for a pod's port has the stack to itself.
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

/// Writes NAT_OUT's half of an identity, as a pod's answer finds it missing. Out of line, as `reserve`.
#[inline(never)]
fn write_identity_out<V: Header>(packet: &Packet<V>, clock: &Clock) {
    let Tuple { source, source_port, .. } = packet.tuple;
    keep_identity(V::nat_out(), &packet.tuple, &source, source_port, packet, clock);
}

/// Keeps NAT_IN's half of an identity alive from the pod's side. Out of line, as `reserve`.
#[inline(never)]
fn write_identity_in<V: Header>(packet: &Packet<V>, clock: &Clock) {
    let Tuple { source, source_port, .. } = packet.tuple;
    keep_identity(V::nat_in(), &packet.tuple.reversed(), &source, source_port, packet, clock);
}

/// To whom, and to which port, answers of the tuple `answers` go; `None` where no pod's.
#[inline(always)]
pub fn translation_in<V: Header>(answers: &Tuple<V>, clock: &Clock) -> Option<(V::Address, Port)> {
    let half = V::nat_in().get_ptr(answers)?;
    // SAFETY: the verifier knows the pointer to be a value's.
    let Mapping { kind, expires_at, address, port, .. } = unsafe { *half };
    let is_pods = kind == TRANSLATED
        && !has_expired(expires_at, clock.low())
        && maps::endpoint::<V>(&address).is_some();
    is_pods.then_some((address, port))
}

/// How a pod's flow leaves.
pub enum Out<V: Header> {
    /// By that address and port.
    As(V::Address, Port),
    /// As it is.
    AsItIs,
    /// Nothing is known of it.
    Unknown,
}

/// How the flow in which a pod sends `sent` leaves.
#[inline(always)]
pub fn translation_out<V: Header>(sent: &Tuple<V>, clock: &Clock) -> Out<V> {
    let Some(half) = V::nat_out().get_ptr(sent) else { return Out::Unknown };
    // SAFETY: the verifier knows the pointer to be a value's.
    let Mapping { kind, expires_at, address, port, .. } = unsafe { *half };
    match kind {
        _ if has_expired(expires_at, clock.low()) => Out::Unknown,
        TRANSLATED => Out::As(address, port),
        IDENTITY => Out::AsItIs,
        _ => Out::Unknown,
    }
}
