//! ARP (RFC 826) and neighbour discovery (RFC 4861): who claims which address.

use netplug_common::ip::{IpVersion, Ipv4, Ipv6, V6};

use crate::packet::{Header, Packet};
use crate::skb::Skb;

/// ICMPv6 type of a router solicitation, the first of discovery's five.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// ICMPv6 type of a redirect, the last of discovery's five.
pub const REDIRECT: u8 = 137;

/// The hop limit that discovery must arrive with (RFC 4861 §6.1, §7.1, §8.1).
pub const HOPS: u8 = 255;

/// Whether discovery, or more headers, may lie behind a header of this kind that was not passed over: hop-by-hop options,
/// routing, fragment, authentication, destination options (RFC 8200 §4).
#[inline(always)]
pub fn may_follow(header: u8) -> bool {
    matches!(header, 0 | 43 | 44 | 51 | 60)
}

/// Whether a packet is one of discovery's.
#[inline(always)]
pub fn is_discovery<V: Header>(packet: &Packet<V>) -> bool {
    V::ICMP == V6::ICMP
        && packet.tuple.protocol == V::ICMP
        && packet.icmp_type >= ROUTER_SOLICITATION
        && packet.icmp_type <= REDIRECT
}

/// Who says in an ARP packet to have which address.
pub struct ArpSender {
    /// The sender's hardware address.
    pub mac: [u8; 6],
    /// The sender's protocol address; unspecified in probes (RFC 5227 §2.1.1).
    pub address: Ipv4,
}

/// Reads the sender of an ARP packet for IPv4 over Ethernet; `None` for others and for broken ones.
#[inline(always)]
pub fn arp_sender(skb: Skb) -> Option<ArpSender> {
    // Hardware Ethernet, protocol IPv4, their address lengths.
    const ETHERNET_IPV4: u32 = 0x0001_0800u32.to_be();
    let [kinds, lengths] = skb.load::<[u32; 2]>(14)?;
    let [hardware, protocol, ..] = lengths.to_ne_bytes();
    if kinds != ETHERNET_IPV4 || hardware != 6 || protocol != 4 {
        return None;
    }
    let mac = skb.load::<[u8; 6]>(22)?;
    let address = skb.load::<u32>(28)?;
    Some(ArpSender { mac, address: Ipv4 { octets: address.to_ne_bytes() } })
}

/// The target of a neighbour advertisement, whose ICMPv6 header lies at `offset`.
#[inline(always)]
pub fn advertised(skb: Skb, offset: u32) -> Option<Ipv6> {
    skb.load::<Ipv6>(offset + 8)
}
