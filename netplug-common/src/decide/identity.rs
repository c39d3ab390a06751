//! Is the packet that leaves the one that entered? Two tuples can share a hash, and tunnels and helpers carry
//! `skb->hash` along to packets of their own, so the hash alone proves nothing.

use bytemuck::{Pod, Zeroable};

/// What neither NAT nor forwarding changes of a packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Identity {
    /// Length of the L3 packet in bytes, and its protocol in the high byte.
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
    /// Puts length and protocol into one word.
    #[inline(always)]
    #[must_use]
    pub const fn length_word(length: u32, protocol: u8) -> u32 {
        length | (protocol as u32) << 24
    }
}
