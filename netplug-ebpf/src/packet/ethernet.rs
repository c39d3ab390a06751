//! The Ethernet header: destination, source, EtherType (IEEE 802.3 §3).

use crate::skb::{Skb, bytes_of};

/// A MAC address as on the wire.
pub type Mac = [u8; 6];

/// EtherType of IPv4 as `skb->protocol` has it.
pub const IPV4: u32 = 0x0800u16.to_be() as u32;
/// EtherType of IPv6 likewise.
pub const IPV6: u32 = 0x86ddu16.to_be() as u32;
/// EtherType of ARP likewise.
pub const ARP: u32 = 0x0806u16.to_be() as u32;
/// EtherType of a VLAN tag (IEEE 802.1Q) likewise: one that is left when the first was taken off.
pub const VLAN: u32 = 0x8100u16.to_be() as u32;
/// EtherType of a service provider's tag (IEEE 802.1ad) likewise.
pub const SERVICE_VLAN: u32 = 0x88a8u16.to_be() as u32;

/// Both addresses, destination first.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub struct Macs {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
}

/// Reads both addresses.
#[inline(always)]
pub fn macs(skb: Skb) -> Option<Macs> {
    // SAFETY: `at` checked that they are there. The Ethernet header is only two-aligned, which the JITs allow.
    skb.at::<Macs>(0).map(|macs| unsafe { macs.read() })
}

/// Whether two addresses are the same. By halves: the compiler would go byte by byte.
#[inline(always)]
pub fn same(a: &Mac, b: &Mac) -> bool {
    let word = |mac: &Mac| u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]);
    let rest = |mac: &Mac| u16::from_ne_bytes([mac[4], mac[5]]);
    word(a) == word(b) && rest(a) == rest(b)
}

/// Whether a frame is for one station only: the group bit is off.
#[inline(always)]
pub fn is_unicast(mac: &Mac) -> bool {
    mac[0] & 1 == 0
}

/// Addresses the frame to `mac`.
#[inline(always)]
pub fn set_destination(skb: Skb, mac: &Mac) -> Result<(), ()> {
    skb.store(0, bytes_of(mac), 6)
}
