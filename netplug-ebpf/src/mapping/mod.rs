//! Mappings: who holds which port of an uplink's address. Used by the masquerade stage only.
//!
//! A mapping is two entries, and each heals the other: whoever finds one half writes the missing one, as long as there is
//! a pod of that address. A half of NAT_IN that is missed while the pod is silent is found again in NAT_OUT (`rebuild`).
//! One that has ended counts for nothing, until a packet of its pod's takes it up again.
//!
//! What the host's own NAT sends by an uplink's address holds its port in NAT_IN too (`host`): masquerade does not
//! take it, and answers are not taken for a pod's.
//!
//! Functions that are out of line leave the stack, 512 bytes for a whole chain of calls, to the search for a port.

mod host;
mod identity;
mod inbound;
mod known;
mod outbound;
mod rebuild;
mod search;

pub use host::{reserve, take_for_host};
pub use identity::write_identity;
pub use inbound::{Found, inbound};
pub use known::{Out, is_translated, translation_in, translation_out};
pub use outbound::{AS_IT_IS, NONE_LEFT, source_for};
pub use rebuild::rebuild;
pub use search::{find, has_socket};

use aya_ebpf::helpers::generated as helpers;
use netplug_common::decide::mapping_life::{Stage, has_expired, next, seconds};
use netplug_common::maps::config::Config;
use netplug_common::maps::nat::{Mapping, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use crate::atomic;
use crate::packet::{Header, Packet};
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
