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

mod fragments;
mod host;
mod host_port;
mod identity;
mod inbound;
mod known;
mod outbound;
mod rebuild;
mod search;
mod socket;
mod sweep;

pub use fragments::{follow, keep_later, note_first};
pub use host::{is_moved, moved_to, reserve, take_for_host};
pub use host_port::{answered, called, hold, keep_from_callers};
pub use identity::write_identity;
pub use inbound::{Found, inbound};
pub use known::{Out, is_translated, translation_in, translation_out};
pub use outbound::{AS_IT_IS, NO_ROOM, NONE_LEFT, source_for};
pub use rebuild::rebuild;
pub use search::{find, is_host_port, may_be_pods, try_port};
pub use socket::has_socket;
pub use sweep::{is_sweep_due, sweep};

use aya_ebpf::helpers::generated as helpers;
use netplug_common::decide::mapping_life::{Lifetimes, STREAM_AFTER, Stage, has_expired, next};
use netplug_common::maps::config::Config;
use netplug_common::maps::nat::{HOST, MOVED, Mapping, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use crate::apart::Apart;
use crate::maps::Mappings;
use crate::packet::{Header, Packet};
use crate::skb::Skb;
use crate::{apart, atomic, maps};

/// The time, and which way a packet goes: what puts off the end of a mapping.
pub struct Clock {
    /// Now, in jiffies.
    pub now: u64,
    is_inward: bool,
    config: &'static Config,
}

impl Clock {
    /// For a packet that leaves, or is sent by a pod.
    #[inline(always)]
    pub fn outward(config: &'static Config) -> Self {
        // SAFETY: takes nothing.
        Self { now: unsafe { helpers::bpf_jiffies64() }, is_inward: false, config }
    }

    /// For a packet that comes from outside.
    #[inline(always)]
    pub fn inward(config: &'static Config) -> Self {
        Self { is_inward: true, ..Self::outward(config) }
    }

    /// The low 32 bits of jiffies, by which mappings expire.
    #[inline(always)]
    pub fn low(&self) -> u32 {
        self.now as u32
    }

    #[inline(always)]
    fn after(&self, seconds: u32) -> u32 {
        (self.now + u64::from(seconds) * self.config.jiffies_per_second) as u32
    }

    /// How long mappings live.
    #[inline(always)]
    fn lifetimes(&self) -> &Lifetimes {
        &self.config.lifetimes
    }

    /// Seconds from now to `expires_at`, less what `revisit` adds.
    #[inline(always)]
    fn seconds_until(&self, expires_at: u32) -> u32 {
        let jiffies = expires_at.wrapping_sub(self.low());
        let revisit = self.config.revisit_jiffies as u32;
        let per_second = self.config.jiffies_per_second as u32;
        jiffies.saturating_sub(revisit).checked_div(per_second).unwrap_or(0)
    }

    /// Whether a packet that goes this way answers, in a flow of that kind.
    #[inline(always)]
    fn is_answer(&self, kind: u8) -> bool {
        self.is_inward == matches!(kind, TRANSLATED | HOST | MOVED)
    }

    /// Where a flow of a mapping of that kind stands after `packet`, and when it ends; `before`: the same, before.
    #[inline(always)]
    fn stage_and_end<V: Header>(
        &self,
        before: (u32, u32),
        kind: u8,
        packet: &Packet<V>,
    ) -> (u8, u32) {
        let (stage, end) = before;
        let protocol = u32::from(packet.tuple.protocol);
        let is_answer = u32::from(self.is_answer(kind));
        let life = apart::life(stage, end, protocol, u32::from(packet.tcp_flags), is_answer);
        (life as u8, (life >> 8) as u32)
    }
}

/// A number that is no stage's.
const NEW: u32 = 0xff;

/// The stage of a flow after a packet, and in the bits above eight when its mapping ends, in the low 32 bits of jiffies; `before` and
/// `end` are the same of before. A flow on the short way is not seen for up to `revisit`. For `apart`: it is asked wherever a
/// mapping is touched, and the verifier would follow it there.
#[inline(always)]
pub fn life(before: u32, end: u32, protocol: u8, flags: u8, is_answer: bool) -> u64 {
    let Some(config) = maps::config() else { return 0 };
    let before = if before == NEW { None } else { Some(Stage::of(before as u8)) };
    // SAFETY: takes nothing.
    let now = unsafe { helpers::bpf_jiffies64() };
    let end_at = |stage| {
        let seconds = u64::from(config.lifetimes.seconds(protocol, stage));
        let end = now + seconds * config.jiffies_per_second + config.revisit_jiffies;
        u64::from(end as u32)
    };
    let before = before.filter(|stage| *stage != Stage::Answered || !has_expired(end, now as u32));
    // Its end is where its first answer put it.
    let age = (end_at(Stage::Answered) as u32).wrapping_sub(end);
    let goes_on = u64::from(age) > u64::from(STREAM_AFTER) * config.jiffies_per_second;
    let stage = next(before, protocol, flags, is_answer, goes_on);
    let is_as_before = matches!((before, stage), (Some(Stage::Answered), Stage::Answered));
    let end = if is_as_before { u64::from(end) } else { end_at(stage) };
    end << 8 | stage as u64
}

/// Puts off the end of a mapping that `packet` belongs to.
#[inline(always)]
fn touch<V: Header>(mapping: *mut Mapping<V>, packet: &Packet<V>, clock: &Clock) {
    // SAFETY: the verifier knows the pointer to be a value's. Two CPUs may write at once; either is right.
    unsafe {
        let before = (u32::from((*mapping).stage), (*mapping).expires_at);
        let (stage, end) = clock.stage_and_end(before, (*mapping).kind, packet);
        (*mapping).stage = stage;
        (*mapping).expires_at = end;
    }
}

/// Has the port of an expired half, or of a closed one if that is urgent, for its finder; `false` if another was first, or its
/// holder came back.
#[inline(always)]
fn take<V: Header>(half: *mut Mapping<V>, clock: &Clock, is_urgent: bool) -> bool {
    let head = Head::of(half);
    let has_ended = has_expired(head.expires_at(), clock.low())
        || (is_urgent && Stage::of(head.stage()).has_ended());
    has_ended && head.becomes(half, clock, 0)
}

/// Keeps the port of a half for its holder, as long as nobody has taken it: when it has ended, a socket of the host's may
/// have, too.
#[inline(always)]
fn keep<V: Header>(skb: Skb, half: *mut Mapping<V>, answers: &Tuple<V>, clock: &Clock) -> bool {
    let head = Head::of(half);
    if head.kind() != TRANSLATED {
        return false;
    }
    if !has_expired(head.expires_at(), clock.low()) {
        return true;
    }
    let is_kept = !has_socket(skb, answers) && head.becomes(half, clock, TRANSLATED);
    if is_kept && Stage::of(head.stage()) == Stage::Answered {
        // It begins anew.
        // SAFETY: the verifier knows the pointer to be a value's. Two CPUs may write at once; either is right.
        unsafe { (*half).stage = Stage::Opening as u8 };
    }
    is_kept
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

    #[inline(always)]
    fn stage(&self) -> u8 {
        (self.0 >> 56) as u8
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
    let (stage, expires_at) = clock.stage_and_end((NEW, 0), kind, packet);
    Mapping { address, expires_at, port, kind, stage }
}

/// A half that was lost, for `packet`'s flow, which stands where `other`, its other half, says.
#[inline(always)]
fn lost_half<V: Header>(
    other: &Mapping<V>,
    packet: &Packet<V>,
    clock: &Clock,
    address: V::Address,
    port: Port,
) -> Mapping<V> {
    let has_ended = has_expired(other.expires_at, clock.low());
    let before = if has_ended { NEW } else { u32::from(other.stage) };
    let (stage, expires_at) = clock.stage_and_end((before, other.expires_at), other.kind, packet);
    Mapping { address, expires_at, port, kind: other.kind, stage }
}

/// Writes a half at `key`, if the flag `claim` lets it; into a full map in the place of what nobody misses. `false`: it has not, or there
/// is no such thing.
#[inline(always)]
fn insert<V: Apart>(table: &Mappings<V>, key: &Tuple<V>, half: &Mapping<V>, claim: u32) -> bool {
    table.insert(key, half, u64::from(claim)).is_ok()
        || (table.get_ptr(key).is_none()
            && V::sweep(true)
            && table.insert(key, half, u64::from(claim)).is_ok())
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
