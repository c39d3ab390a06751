//! Is the packet that leaves the one that entered? Two tuples can share a hash, and tunnels and helpers carry
//! `skb->hash` along to packets of their own, so the hash alone proves nothing.

use bytemuck::{Pod, Zeroable};

/// What neither NAT nor forwarding changes of a packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Identity {
    /// Length of the L3 packet in bytes, and in the two high bytes its protocol and the hops that are left when it leaves: one less
    /// than when it entered. A host that sets them otherwise is to see each packet.
    pub length: u32,
    /// IPv4 identification and type of service (RFC 791); for IPv6 the word with traffic class and flow label. A host that
    /// marks some packets (DSCP) is to see each of them.
    pub id: u32,
    /// TCP sequence number, or the UDP length.
    pub first: u32,
    /// TCP acknowledgement number, or the first word of the UDP payload.
    pub second: u32,
    /// 0 for TCP, or the second word of the UDP payload.
    pub third: u32,
}

impl Identity {
    /// One hop, in the word of [`Identity::length`].
    pub const HOP: u32 = 1 << 16;

    /// Puts length, hops and protocol into one word.
    #[inline(always)]
    #[must_use]
    pub const fn length_word(length: u32, hops: u8, protocol: u8) -> u32 {
        (length & 0xffff) | (hops as u32) << 16 | (protocol as u32) << 24
    }
}
