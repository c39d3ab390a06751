//! The only writer of packets' addresses, ports and checksums.

use core::ffi::c_void;
use core::ptr::from_mut;

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::crc32c;
use netplug_common::decide::rewrite::deltas;
use netplug_common::ip::IpVersion;
use netplug_common::tuple::{SCTP, TCP, Tuple, UDP};

use crate::apart;
use crate::packet::ethernet::Mac;
use crate::packet::{Header, Kind, Packet};
use crate::skb::{ETHERNET, Skb, bytes_of};

/// What a cached flow makes of a packet, computed when it was learned.
pub struct ShortWay<V: IpVersion> {
    /// The tuple as it leaves.
    pub left: Tuple<V>,
    /// Checksum delta of the addresses.
    pub address_delta: u32,
    /// Checksum delta of the ports.
    pub port_delta: u32,
    /// The frame's destination.
    pub destination_mac: Mac,
    /// The frame's source.
    pub source_mac: Mac,
}

impl<V: IpVersion> ShortWay<V> {
    /// The Ethernet header of the leaving frame.
    #[inline(always)]
    pub fn ethernet(&self, ethertype: u16) -> [u8; 14] {
        let [a, b, c, d, e, f] = self.destination_mac;
        let [g, h, i, j, k, l] = self.source_mac;
        let [m, n] = ethertype.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
    }
}

/// Offset of the checksum within a transport header.
#[inline(always)]
pub const fn checksum_offset(protocol: u8) -> u32 {
    match protocol {
        TCP => 16,
        UDP => 6,
        SCTP => 8,
        _ => 2,
    }
}

/// Brings a TCP or UDP checksum up to date. A UDP checksum of 0 ("none", RFC 768) stays 0, and one that
/// becomes 0 is written as all ones.
#[inline(always)]
pub fn add_to_transport_checksum<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    address_delta: u32,
    port_delta: u32,
) -> Result<(), ()> {
    let protocol = packet.tuple.protocol;
    let offset = packet.at(checksum_offset(protocol));
    let keep_zero = if protocol == UDP { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
    if address_delta != 0 {
        add_pseudo_header::<V>(skb, offset, address_delta, keep_zero)?;
    }
    if port_delta != 0 {
        skb.add_to_checksum(offset, port_delta, keep_zero)?;
    }
    Ok(())
}

/// Kernels that do not know the family's flag refuse it and are asked without.
#[inline(always)]
pub fn add_pseudo_header<V: Header>(
    skb: Skb,
    offset: u32,
    delta: u32,
    flags: u64,
) -> Result<(), ()> {
    const PLAIN: u64 = aya_ebpf::bindings::BPF_F_PSEUDO_HDR as u64;
    let first = skb.add_to_checksum(offset, delta, V::PSEUDO_HEADER | flags);
    if first.is_ok() || V::PSEUDO_HEADER == PLAIN {
        return first;
    }
    skb.add_to_checksum(offset, delta, PLAIN | flags)
}

/// Makes `packet` one of the tuple `to`, or tells why it cannot: then it must be dropped.
#[inline(always)]
pub fn become_tuple<V: Header>(
    skb: Skb,
    packet: &mut Packet<V>,
    to: &Tuple<V>,
) -> Result<(), Counter> {
    let Tuple { protocol, source_port, destination_port, .. } = packet.tuple;
    let changes_ports = source_port != to.source_port || destination_port != to.destination_port;
    if protocol == SCTP && packet.fragment != 0 && changes_ports {
        return Err(Counter::SctpFragment);
    }
    translate(skb, packet, to).map_err(|()| Counter::RewriteFailed)
}

/// Makes `packet`, of a kind that has ports, one of the tuple `to`, and remembers it so.
/// After an error the packet may be half written and must be dropped.
#[inline(always)]
fn translate<V: Header>(skb: Skb, packet: &mut Packet<V>, to: &Tuple<V>) -> Result<(), ()> {
    let change = deltas(&packet.tuple, to);
    if packet.tuple.protocol == SCTP {
        V::write_addresses_alone(skb, to, change.addresses)?;
        write_sctp_ports(skb, packet, to)?;
        packet.tuple = *to;
        return Ok(());
    }
    V::write_addresses(skb, to, change.addresses)?;
    match packet.kind {
        Kind::Plain | Kind::Optioned => {
            add_to_transport_checksum::<V>(skb, packet, change.addresses, change.ports)?;
            skb.store(packet.at(0), bytes_of(&to.source_port), 4)?;
        }
        Kind::Echo => {
            let checksum = packet.at(checksum_offset(packet.tuple.protocol));
            if V::ICMP_HAS_PSEUDO_HEADER && change.addresses != 0 {
                add_pseudo_header::<V>(skb, checksum, change.addresses, 0)?;
            }
            if change.ports != 0 {
                skb.add_to_checksum(checksum, change.ports, 0)?;
            }
            // The tuple has the identifier on the requester's side and 0 on the other.
            let identifier = if packet.icmp_type == V::ECHO_REQUEST {
                to.source_port
            } else {
                to.destination_port
            };
            skb.store(packet.at(4), bytes_of(&identifier), 2)?;
        }
        Kind::Error | Kind::Later | Kind::Other => return Err(()),
    }
    packet.tuple = *to;
    Ok(())
}

/// Gives a later fragment, which has no ports, other addresses; nothing is written where they are the same.
#[inline(always)]
pub fn readdress<V: Header>(
    skb: Skb,
    packet: &mut Packet<V>,
    source: &V::Address,
    destination: &V::Address,
) -> Result<(), ()> {
    let before = packet.tuple;
    packet.tuple.source = *source;
    packet.tuple.destination = *destination;
    if packet.tuple == before {
        return Ok(());
    }
    V::write_addresses_alone(skb, &packet.tuple, deltas(&before, &packet.tuple).addresses)
}

/// Writes SCTP's ports, and its checksum where it has one already: a sender leaves it 0 for a device to fill in
/// (`sctp_packet_pack`, net/sctp/output.c). Out of line. The ports of a fragment cannot be changed.
#[inline(never)]
fn write_sctp_ports<V: Header>(skb: Skb, packet: &Packet<V>, to: &Tuple<V>) -> Result<(), ()> {
    let before = skb.load::<u32>(packet.at(0)).ok_or(())?;
    let [a, b] = to.source_port.octets;
    let [c, d] = to.destination_port.octets;
    let after = u32::from_ne_bytes([a, b, c, d]);
    if before == after {
        return Ok(());
    }
    if packet.fragment != 0 {
        return Err(());
    }
    let checksum = skb.load::<u32>(packet.at(8)).ok_or(())?;
    let end = ETHERNET + V::length(skb);
    let length = end.saturating_sub(packet.at(0)) as u16;
    skb.store_summed(packet.at(0), bytes_of(&after), 4)?;
    if checksum == 0 {
        return Ok(());
    }
    let checksum = checksum ^ apart::crc_delta(before ^ after, u32::from(length));
    skb.store_summed(packet.at(8), bytes_of(&checksum), 4)
}

/// [`crc32c::delta`], of octets as a word of the machine. Called by `apart` only.
#[inline(always)]
pub fn crc_delta(change: u32, length: u16) -> u32 {
    crc32c::delta(change.to_ne_bytes(), length, |crc, zeros| {
        let mut steps = Steps { crc, zeros };
        // SAFETY: the callback gets this very struct (since Linux 5.17).
        unsafe {
            helpers::bpf_loop(crc32c::STEPS, step as *mut c_void, from_mut(&mut steps).cast(), 0)
        };
        steps.crc
    })
}

struct Steps {
    crc: u32,
    zeros: u32,
}

extern "C" fn step(at: u32, steps: *mut Steps) -> i64 {
    // SAFETY: `crc_delta` passes its own struct.
    let steps = unsafe { &mut *steps };
    steps.crc = crc32c::step(steps.crc, steps.zeros, at);
    0
}
