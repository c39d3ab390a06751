//! FRAGMENTS4, FRAGMENTS6: what became of a datagram's first fragment, for those that follow and have no ports. HELD: later
//! fragments that came before it.
//! Shape    LRU hash, Fragments → Fate, 8,192 entries each; HELD is an array of 128 frames, used in turn
//! Writes   every program, as a first fragment passes it; `from_uplink` and `to_uplink` hold what comes early
//! Reads    every program, for a later fragment
//! Ends     LRU; 30 s after the first fragment (`ip_frag_time`). What is held ends when its place is used again
//! Missing  the datagram is not put together, and its sender repeats it, or not: as with a lost fragment
//! Order    addresses as on the wire
//! Units    expires_at in jiffies, the low 32 bits

use crate::ip::{Address, IpVersion};
use crate::maps::plain_old_data;

/// The datagram that a fragment is of, as it passes one program (RFC 791 §3.2, RFC 8200 §4.5).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragments<V: IpVersion> {
    /// Who speaks.
    pub source: V::Address,
    /// To whom.
    pub destination: V::Address,
    /// The identification, as on the wire; IPv4's in its first half.
    pub id: u32,
    /// What the fragments' headers name as protocol. (An IPv6 fragment's first need not be followed by the transport.)
    pub protocol: u8,
    /// 1 as it enters, 0 as it leaves: in between the host may have had it as another.
    pub enters: u8,
    /// Always zero: keys are compared byte by byte.
    pub _pad: [u8; 2],
}
plain_old_data!(Fragments<V> { 16, 40 });

impl<V: IpVersion> Fragments<V> {
    /// The key folded into one word, never 0: by it what is held is found again. Two of one tag only cost each other a look.
    #[inline(always)]
    #[must_use]
    pub fn tag(&self) -> u64 {
        let ends = self.source.fold().rotate_left(32) ^ self.destination.fold();
        (ends ^ (self.id as u64) << 9 ^ (self.enters as u64) << 8 ^ self.protocol as u64) | 1 << 63
    }
}

/// What becomes of a datagram's fragments.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate<V: IpVersion> {
    /// The source that they get.
    pub source: V::Address,
    /// The destination that they get.
    pub destination: V::Address,
    /// From when on the identification is another datagram's.
    pub expires_at: u32,
    /// [`KNOWN`], or [`AWAITED`]: the first has not come, and later ones are held.
    pub state: u32,
}
plain_old_data!(Fate<V> { 16, 40 });

/// State: addresses are known.
pub const KNOWN: u32 = 1;
/// State: the first fragment has not come yet.
pub const AWAITED: u32 = 2;

/// The longest frame that is held, in bytes: a jumbo frame's.
pub const FRAME: usize = 9_216;

/// A frame that waits for its datagram's first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Held {
    /// [`Fragments::tag`]; 0 while nothing is held here.
    pub tag: u64,
    /// Length of the frame in bytes.
    pub length: u32,
    /// From when on it is of no use.
    pub expires_at: u32,
    /// The frame, from its Ethernet header on.
    pub frame: [u8; FRAME],
}
