//! IPv6 (RFC 8200), below an untagged Ethernet header.
//!
//! ```text
//!  14 version, class, flow label   18 payload length  20 next header  21 hops
//!  22 source                       38 destination
//!  54 ports, where there are no extension headers
//! ```
//! Its own: no checksum in the header; extension headers between it and the transport. The first few are passed over, up to
//! what changes or hides what lies behind: a routing header that is not done with, authentication, encryption.

use core::ffi::c_void;
use core::ptr::from_mut;

use aya_ebpf::bindings::{BPF_F_PSEUDO_HDR, bpf_sock};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::ip::{IpVersion, Ipv6, V6};
use netplug_common::tuple::{Port, TCP, Tuple, UDP};

use crate::apart;
use crate::packet::rewrite::{ShortWay, add_to_transport_checksum};
use crate::packet::{Header, Kind, Packet};
use crate::skb::{ETHERNET, Skb, bytes_of};

const SOURCE: u32 = 22;
const TRANSPORT: u32 = 54;

/// `BPF_F_IPV6`: the address changed in no checksum of its own, so that CHECKSUM_COMPLETE stays as it is.
/// Since Linux 6.16 (and stable trees); kernels without it refuse the call, and are asked again without.
const BPF_F_IPV6: u64 = 1 << 7;

/// The header and the ports behind it; the gap as in IPv4.
#[repr(C, align(8))]
struct Frame {
    gap: [u8; 2],
    ethernet: [u8; 14],
    label: u32,
    payload_length: u16,
    protocol: u8,
    hops: u8,
    source: Ipv6,
    destination: Ipv6,
    source_port: Port,
    destination_port: Port,
    tail: [u8; 4],
}

/// Headers (RFC 8200 §4) that are passed over at most; who sends more has something to hide.
const EXTENSIONS: u32 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// Offset of the identification in a fragment header.
const FRAGMENT_ID: u32 = 4;

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Where the extension headers end.
pub struct End {
    /// What lies there: the transport, or the header that stopped the walk.
    protocol: u8,
    /// Whether a fragment header said that it is not the first.
    is_later: bool,
    offset: u32,
    /// Offset of a fragment's identification, or 0.
    fragment: u32,
}

impl End {
    /// All in one number, for `apart`: a global function returns no more.
    #[inline(always)]
    pub fn pack(&self) -> u64 {
        u64::from(self.offset as u16)
            | u64::from(self.fragment as u16) << 16
            | u64::from(self.protocol) << 32
            | u64::from(self.is_later) << 40
    }

    #[inline(always)]
    fn of(packed: u64) -> Self {
        Self {
            offset: u32::from(packed as u16),
            fragment: u32::from((packed >> 16) as u16),
            protocol: (packed >> 32) as u8,
            is_later: packed >> 40 != 0,
        }
    }
}

/// Passes over the extension headers from `offset` on, of which the first is a `protocol`.
#[inline(always)]
pub fn walk(skb: Skb, offset: u32, protocol: u8) -> End {
    let end = End { protocol, is_later: false, offset, fragment: 0 };
    let mut walk = Walk { skb, end };
    // SAFETY: the callback gets this very struct (since Linux 5.17).
    unsafe { helpers::bpf_loop(EXTENSIONS, pass as *mut c_void, from_mut(&mut walk).cast(), 0) };
    walk.end
}

struct Walk {
    skb: Skb,
    end: End,
}

const GO_ON: i64 = 0;
const STOP: i64 = 1;

extern "C" fn pass(index: u32, walk: *mut Walk) -> i64 {
    // SAFETY: `walk` passes its own struct.
    let Walk { skb, end } = unsafe { &mut *walk };
    if !is_extension(end.protocol) || end.is_later {
        return STOP;
    }
    let Some(head) = skb.load::<u32>(end.offset) else { return STOP };
    let [next, units, high, low] = head.to_ne_bytes();
    // Hop-by-hop options stand first or not at all; a route with stops to come hides where the packet goes.
    if (end.protocol == HOP_BY_HOP && index > 0) || (end.protocol == ROUTING && low != 0) {
        return STOP;
    }
    let mut size = 8 + 8 * u32::from(units);
    if end.protocol == FRAGMENT {
        if end.fragment != 0 {
            return STOP;
        }
        end.fragment = end.offset + FRAGMENT_ID;
        end.is_later = u16::from_be_bytes([high, low]) & !7 != 0;
        size = 8;
    }
    if end.offset + size > skb.length() {
        return STOP;
    }
    end.offset += size;
    end.protocol = next;
    GO_ON
}

#[inline(always)]
unsafe fn address(at: *const u8) -> Ipv6 {
    // SAFETY: the caller checked sixteen bytes.
    let words = unsafe { at.cast::<[u64; 2]>().read() };
    bytemuck::cast(Words(words))
}

#[repr(C, align(8))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Words([u64; 2]);

impl Header for V6 {
    const PSEUDO_HEADER: u64 = BPF_F_PSEUDO_HDR as u64 | BPF_F_IPV6;
    const ICMP_HAS_PSEUDO_HEADER: bool = true;

    #[inline(always)]
    fn plain(skb: Skb) -> Option<Packet<Self>> {
        let frame = skb.at::<[u8; TRANSPORT as usize + 4]>(0)?.cast::<u8>();
        // SAFETY: `at` checked 58 bytes; as for IPv4.
        unsafe {
            if frame.add(14).read() >> 4 != 6 {
                return None;
            }
            let protocol = frame.add(20).read();
            let tuple = Tuple {
                source: address(frame.add(22)),
                destination: address(frame.add(38)),
                source_port: Port { octets: frame.add(54).cast::<u16>().read().to_ne_bytes() },
                destination_port: Port { octets: frame.add(56).cast::<u16>().read().to_ne_bytes() },
                protocol,
                _pad: [0; 3],
            };
            let tcp_flags = match protocol {
                TCP => skb.at::<u8>(TRANSPORT as usize + 13)?.read(),
                UDP => 0,
                _ => return None,
            };
            let hops = frame.add(21).read();
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
        // All but the version, in network order.
        skb.load::<u32>(14).unwrap_or(0) & 0x0fff_ffffu32.to_be()
    }

    #[inline(always)]
    fn quoted(skb: Skb, offset: u32) -> Option<(Tuple<Self>, u32)> {
        let head = skb.load::<[u32; 2]>(offset)?;
        let [first, ..] = head[0].to_ne_bytes();
        let [_, _, protocol, _] = head[1].to_ne_bytes();
        if first >> 4 != 6 {
            return None;
        }
        let tuple = Tuple {
            source: skb.load::<Ipv6>(offset + SOURCE - ETHERNET)?,
            destination: skb.load::<Ipv6>(offset + SOURCE - ETHERNET + 16)?,
            source_port: Port::new(0),
            destination_port: Port::new(0),
            protocol,
            _pad: [0; 3],
        };
        let start = offset + Self::HEADER_LENGTH;
        let end = End::of(apart::walk(skb.0, start, u32::from(protocol)));
        if end.is_later {
            return None;
        }
        Some((Tuple { protocol: end.protocol, ..tuple }, end.offset))
    }

    #[inline(always)]
    fn write_quoted_addresses(
        skb: Skb,
        offset: u32,
        to: &Tuple<Self>,
        _address_delta: u32,
    ) -> Result<(), ()> {
        skb.store(offset + SOURCE - ETHERNET, bytes_of(&to.source), 32)
    }

    #[inline(always)]
    unsafe fn peer(socket: *const bpf_sock) -> Ipv6 {
        // SAFETY: the caller's; volatile, so that each is one access.
        let word =
            |at: usize| unsafe { core::ptr::read_volatile(&raw const (*socket).dst_ip6[at]) };
        Ipv6 { octets: bytemuck::cast([word(0), word(1), word(2), word(3)]) }
    }

    #[inline(always)]
    fn is_icmp(skb: Skb) -> bool {
        // SAFETY: `at` checked it.
        skb.at::<u8>(20).is_some_and(|protocol| unsafe { *protocol } == Self::ICMP)
    }

    #[inline(always)]
    fn any(skb: Skb, packet: &mut Packet<Self>) -> bool {
        let Some(frame) = skb.at::<[u8; TRANSPORT as usize]>(0) else { return false };
        let frame = frame.cast::<u8>();
        // SAFETY: `at` checked 54 bytes.
        let (version, protocol) = unsafe {
            packet.hops = frame.add(21).read();
            packet.tuple.source = address(frame.add(22));
            packet.tuple.destination = address(frame.add(38));
            (frame.add(14).read() >> 4, frame.add(20).read())
        };
        if version != 6 {
            return false;
        }
        packet.tuple.protocol = protocol;
        packet.transport = TRANSPORT as u16;
        if is_extension(protocol) {
            let end = End::of(apart::walk(skb.0, TRANSPORT, u32::from(protocol)));
            packet.transport = end.offset as u16;
            packet.fragment = end.fragment as u16;
            packet.tuple.protocol = end.protocol;
            if end.is_later {
                packet.kind = Kind::Later;
                return true;
            }
        }
        packet.read_transport(skb, protocol == packet.tuple.protocol);
        true
    }

    /// IPv6 has no identification; the first word has the flow label.
    #[inline(always)]
    fn identification(skb: Skb) -> u32 {
        skb.load::<u32>(14).unwrap_or(0)
    }

    #[inline(always)]
    fn length(skb: Skb) -> u32 {
        skb.load::<u16>(18)
            .map_or(0, |length| u32::from(u16::from_be(length)) + Self::HEADER_LENGTH)
    }

    #[inline(always)]
    fn write_short_way(skb: Skb, packet: &Packet<Self>, way: &ShortWay<Self>) -> Result<(), ()> {
        let frame = skb.at::<[u8; TRANSPORT as usize + 4]>(0).ok_or(())?.cast::<u8>();
        // SAFETY: `at` checked 58 bytes.
        let (label, payload_length) =
            unsafe { (frame.add(14).cast::<u32>().read(), frame.add(18).cast::<u16>().read()) };
        let frame = Frame {
            gap: [0; 2],
            ethernet: way.ethernet(Self::ETHERTYPE),
            label,
            payload_length,
            protocol: packet.tuple.protocol,
            hops: packet.hops.wrapping_sub(1),
            source: way.left.source,
            destination: way.left.destination,
            source_port: way.left.source_port,
            destination_port: way.left.destination_port,
            tail: [0; 4],
        };
        skb.store(0, (&raw const frame.ethernet).cast(), TRANSPORT + 4)?;
        add_to_transport_checksum::<Self>(skb, packet, way.address_delta, way.port_delta)
    }

    #[inline(always)]
    fn write_addresses(skb: Skb, to: &Tuple<Self>, _address_delta: u32) -> Result<(), ()> {
        skb.store(SOURCE, bytes_of(&to.source), 32)
    }

    /// Nothing in the packet makes up for the change, so a sum that came with it follows.
    #[inline(always)]
    fn write_addresses_alone(skb: Skb, to: &Tuple<Self>, _address_delta: u32) -> Result<(), ()> {
        skb.store_summed(SOURCE, bytes_of(&to.source), 32)
    }

    #[inline(always)]
    fn fragment(skb: Skb, offset: u16) -> Option<(u32, u8)> {
        let id = skb.load::<u32>(u32::from(offset))?;
        let protocol = skb.load::<u8>(u32::from(offset) - FRAGMENT_ID)?;
        Some((id, protocol))
    }
}
