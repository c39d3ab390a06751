//! IPv4 (RFC 791), below an untagged Ethernet header.
//!
//! ```text
//!  14 version+length  15 service  16 total length
//!  18 identification              20 flags+fragment offset
//!  22 hops            23 protocol 24 header checksum
//!  26 source                      30 destination
//!  34 ports, where there are no options
//! ```
//! Its own: a checksum over the header, options between header and transport, fragments by the header itself.

use aya_ebpf::bindings::{BPF_F_PSEUDO_HDR, bpf_sock};
use netplug_common::checksum::{add, hop_delta, updated};
use netplug_common::ip::{IpVersion, Ipv4, V4};
use netplug_common::tuple::{Port, TCP, Tuple, UDP};

use crate::packet::rewrite::{ShortWay, add_to_transport_checksum};
use crate::packet::{Header, Kind, Packet};
use crate::skb::{ETHERNET, Skb, bytes_of};

const SERVICE: u32 = 15;
const LENGTH: u32 = 16;
const IDENTIFICATION: u32 = 18;
const PROTOCOL: u32 = 23;
const CHECKSUM: u32 = 24;
const SOURCE: u32 = 26;
const TRANSPORT: u32 = 34;

/// The header and the ports behind it, laid out for word access: the gap makes the IP header four-aligned, as it
/// is in the kernel's memory.
#[repr(C, align(4))]
struct Frame {
    gap: [u8; 2],
    ethernet: [u8; 14],
    start: [u32; 2],
    hops: u8,
    protocol: u8,
    checksum: u16,
    source: Ipv4,
    destination: Ipv4,
    source_port: Port,
    destination_port: Port,
}

/// Bits of the fragment field: "more fragments", and the offset.
const FRAGMENT: u16 = 0x3fffu16.to_be();
/// The offset alone; only the fragment at 0 has ports.
const OFFSET: u16 = 0x1fffu16.to_be();

impl Header for V4 {
    const PSEUDO_HEADER: u64 = BPF_F_PSEUDO_HDR as u64;
    const ICMP_HAS_PSEUDO_HEADER: bool = false;

    #[inline(always)]
    fn plain(skb: Skb) -> Option<Packet<Self>> {
        let frame = skb.at::<[u8; TRANSPORT as usize + 4]>(0)?.cast::<u8>();
        // SAFETY: `at` checked 38 bytes. Words are read where they lie; the IP header is four-aligned in memory,
        // and the JITs of all platforms with an efficient unaligned access take it where it is not.
        unsafe {
            if frame.add(14).read() != 0x45 || frame.add(20).cast::<u16>().read() & FRAGMENT != 0 {
                return None;
            }
            let protocol = frame.add(23).read();
            let tuple = Tuple {
                source: Ipv4 { octets: frame.add(26).cast::<u32>().read().to_ne_bytes() },
                destination: Ipv4 { octets: frame.add(30).cast::<u32>().read().to_ne_bytes() },
                source_port: Port { octets: frame.add(34).cast::<u16>().read().to_ne_bytes() },
                destination_port: Port { octets: frame.add(36).cast::<u16>().read().to_ne_bytes() },
                protocol,
                _pad: [0; 3],
            };
            let tcp_flags = match protocol {
                TCP => skb.at::<u8>(TRANSPORT as usize + 13)?.read(),
                UDP => 0,
                _ => return None,
            };
            let hops = frame.add(22).read();
            Some(Packet {
                tuple,
                transport: TRANSPORT as u16,
                fragment: 0,
                kind: Kind::Plain,
                tcp_flags,
                hops,
                icmp_type: 0,
            })
        }
    }

    #[inline(always)]
    fn flow_information(skb: Skb) -> u32 {
        skb.load::<u8>(SERVICE).map_or(0, u32::from)
    }

    #[inline(always)]
    fn quoted(skb: Skb, offset: u32) -> Option<(Tuple<Self>, u32)> {
        let head = skb.load::<[u32; 5]>(offset)?;
        let [first, ..] = head[0].to_ne_bytes();
        let [_, _, high, low] = head[1].to_ne_bytes();
        let [_, protocol, ..] = head[2].to_ne_bytes();
        let header_length = u32::from(first & 0x0f) * 4;
        if first >> 4 != 4
            || header_length < Self::HEADER_LENGTH
            || u16::from_ne_bytes([high, low]) & OFFSET != 0
        {
            return None;
        }
        let tuple = Tuple {
            source: Ipv4 { octets: head[3].to_ne_bytes() },
            destination: Ipv4 { octets: head[4].to_ne_bytes() },
            source_port: Port::new(0),
            destination_port: Port::new(0),
            protocol,
            _pad: [0; 3],
        };
        Some((tuple, offset + header_length))
    }

    #[inline(always)]
    fn write_quoted_addresses(
        skb: Skb,
        offset: u32,
        to: &Tuple<Self>,
        address_delta: u32,
    ) -> Result<(), ()> {
        let at = |field: u32| offset + field - ETHERNET;
        skb.add_to_header_checksum(at(CHECKSUM), address_delta)?;
        skb.store(at(SOURCE), bytes_of(&to.source), 8)
    }

    #[inline(always)]
    unsafe fn peer(socket: *const bpf_sock) -> Ipv4 {
        // SAFETY: the caller's; volatile, so that it is one access.
        let address = unsafe { core::ptr::read_volatile(&raw const (*socket).dst_ip4) };
        Ipv4 { octets: address.to_ne_bytes() }
    }

    #[inline(always)]
    fn is_icmp(skb: Skb) -> bool {
        // SAFETY: `at` checked it.
        skb.at::<u8>(23).is_some_and(|protocol| unsafe { *protocol } == Self::ICMP)
    }

    #[inline(always)]
    fn any(skb: Skb, packet: &mut Packet<Self>) -> bool {
        let Some(head) = skb.load::<[u32; 5]>(14) else { return false };
        let [first, ..] = head[0].to_ne_bytes();
        let header_length = u32::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header_length < Self::HEADER_LENGTH {
            return false;
        }
        let [_, _, fragment_high, fragment_low] = head[1].to_ne_bytes();
        let [hops, protocol, ..] = head[2].to_ne_bytes();
        let fragment = u16::from_ne_bytes([fragment_high, fragment_low]) & FRAGMENT;
        packet.tuple.source = Ipv4 { octets: head[3].to_ne_bytes() };
        packet.tuple.destination = Ipv4 { octets: head[4].to_ne_bytes() };
        packet.tuple.protocol = protocol;
        packet.transport = 14 + header_length as u16;
        packet.hops = hops;
        if fragment != 0 {
            packet.fragment = IDENTIFICATION as u16;
        }
        if fragment & OFFSET == 0 {
            packet.read_transport(skb, header_length == Self::HEADER_LENGTH);
        } else {
            packet.kind = Kind::Later;
        }
        true
    }

    #[inline(always)]
    fn identification(skb: Skb) -> u32 {
        let service = skb.load::<u8>(SERVICE).map_or(0, u32::from);
        service << 16 | skb.load::<u16>(IDENTIFICATION).map_or(0, u32::from)
    }

    #[inline(always)]
    fn length(skb: Skb) -> u32 {
        skb.load::<u16>(LENGTH).map_or(0, |length| u32::from(u16::from_be(length)))
    }

    #[inline(always)]
    fn write_short_way(skb: Skb, packet: &Packet<Self>, way: &ShortWay<Self>) -> Result<(), ()> {
        let frame = skb.at::<[u8; TRANSPORT as usize + 4]>(0).ok_or(())?.cast::<u8>();
        // SAFETY: `at` checked 38 bytes.
        let (start, checksum) = unsafe {
            (
                [frame.add(14).cast::<u32>().read(), frame.add(18).cast::<u32>().read()],
                frame.add(24).cast::<u16>().read(),
            )
        };
        let delta = add(way.address_delta, hop_delta(packet.hops, packet.tuple.protocol));
        let frame = Frame {
            gap: [0; 2],
            ethernet: way.ethernet(Self::ETHERTYPE),
            start,
            hops: packet.hops.wrapping_sub(1),
            protocol: packet.tuple.protocol,
            checksum: updated(checksum, delta),
            source: way.left.source,
            destination: way.left.destination,
            source_port: way.left.source_port,
            destination_port: way.left.destination_port,
        };
        skb.store(0, (&raw const frame.ethernet).cast(), TRANSPORT + 4)?;
        add_to_transport_checksum::<Self>(skb, packet, way.address_delta, way.port_delta)
    }

    #[inline(always)]
    fn write_addresses(skb: Skb, to: &Tuple<Self>, address_delta: u32) -> Result<(), ()> {
        skb.add_to_header_checksum(CHECKSUM, address_delta)?;
        // Source and destination lie together in the tuple as they do in the header.
        skb.store(SOURCE, bytes_of(&to.source), 8)
    }

    /// The header's own checksum takes care of what a sum over the whole packet would see.
    #[inline(always)]
    fn write_addresses_alone(skb: Skb, to: &Tuple<Self>, address_delta: u32) -> Result<(), ()> {
        Self::write_addresses(skb, to, address_delta)
    }

    #[inline(always)]
    fn fragment(skb: Skb, offset: u16) -> Option<(u32, u8)> {
        let id = skb.load::<u16>(u32::from(offset))?;
        let protocol = skb.load::<u8>(PROTOCOL)?;
        Some((u32::from(id), protocol))
    }
}
