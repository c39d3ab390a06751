//! The packet that an ICMP error quotes, from its IP header on: whose flow the error is about.
//!
//! ```text
//!  outer IP | type code checksum | unused or MTU | quoted IP header | ports, at least
//! ```
//! A translated error has its quote translated too, with the quote's own checksums, as far as they are quoted; so the
//! receiver finds its socket by it (RFC 5508 §4.2, `nf_nat_icmp_reply_translation` in net/netfilter/nf_nat_proto.c).

use netplug_common::checksum::{add, updated};
use netplug_common::decide::rewrite::deltas;
use netplug_common::tuple::{Port, SCTP, TCP, Tuple, UDP};

use crate::packet::rewrite::{add_pseudo_header, checksum_offset};
use crate::packet::{Header, Packet};
use crate::skb::{Skb, bytes_of};

/// Length of an error's own header (RFC 792, RFC 4443 §2.1).
const HEADER: u32 = 8;

/// What an error quotes.
pub struct Quote<V: Header> {
    /// The quoted packet's tuple.
    pub tuple: Tuple<V>,
    transport: u32,
    is_reply: bool,
}

#[inline(always)]
fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP || protocol == SCTP
}

/// Reads what `packet`, an error, quotes; `None` where no port or identifier of it can be had.
#[inline(always)]
pub fn read<V: Header>(skb: Skb, packet: &Packet<V>) -> Option<Quote<V>> {
    let (mut tuple, transport) = V::quoted(skb, packet.at(HEADER))?;
    let mut is_reply = false;
    if has_ports(tuple.protocol) {
        let [source, destination] = skb.load::<[u16; 2]>(transport)?;
        tuple.source_port = Port { octets: source.to_ne_bytes() };
        tuple.destination_port = Port { octets: destination.to_ne_bytes() };
    } else if tuple.protocol == V::ICMP {
        let message = skb.load::<u8>(transport)?;
        let identifier = Port { octets: skb.load::<u16>(transport + 4)?.to_ne_bytes() };
        if message == V::ECHO_REQUEST {
            tuple.source_port = identifier;
        } else if message == V::ECHO_REPLY {
            tuple.destination_port = identifier;
            is_reply = true;
        } else {
            return None;
        }
    } else {
        return None;
    }
    Some(Quote { tuple, transport, is_reply })
}

/// Makes `packet`, an error, one between the addresses of `outer` that quotes a packet of the tuple `inner`.
/// After an error the packet may be half written and must be dropped.
#[inline(always)]
pub fn translate<V: Header>(
    skb: Skb,
    packet: &mut Packet<V>,
    quote: &Quote<V>,
    outer: &Tuple<V>,
    inner: &Tuple<V>,
) -> Result<(), ()> {
    let change = deltas(&quote.tuple, inner);
    let mut sum = write_ports(skb, quote, inner, change.addresses, change.ports)?;
    V::write_quoted_addresses(skb, packet.at(HEADER), inner, change.addresses)?;
    // A header with a checksum of its own sums up to the same as before.
    if V::ICMP_HAS_PSEUDO_HEADER {
        sum = add(sum, change.addresses);
    }
    let checksum = packet.at(checksum_offset(packet.tuple.protocol));
    if sum != 0 {
        skb.add_to_checksum(checksum, sum, 0)?;
    }
    let change = deltas(&packet.tuple, outer);
    if V::ICMP_HAS_PSEUDO_HEADER && change.addresses != 0 {
        add_pseudo_header::<V>(skb, checksum, change.addresses, 0)?;
    }
    V::write_addresses(skb, outer, change.addresses)?;
    packet.tuple = *outer;
    Ok(())
}

/// Writes the quoted ports, or identifier, and the quoted transport's checksum where it is quoted. Returns what that does
/// to a sum over the quote.
#[inline(always)]
fn write_ports<V: Header>(
    skb: Skb,
    quote: &Quote<V>,
    inner: &Tuple<V>,
    address_delta: u32,
    port_delta: u32,
) -> Result<u32, ()> {
    let protocol = quote.tuple.protocol;
    if has_ports(protocol) {
        skb.store(quote.transport, bytes_of(&inner.source_port), 4)?;
    } else {
        let identifier = if quote.is_reply { inner.destination_port } else { inner.source_port };
        skb.store(quote.transport + 4, bytes_of(&identifier), 2)?;
    }
    if protocol == SCTP {
        // Its checksum is one of the whole packet, of which no receiver has more than the quote.
        return Ok(port_delta);
    }
    let at = quote.transport + checksum_offset(protocol);
    let has_pseudo_header = protocol != V::ICMP || V::ICMP_HAS_PSEUDO_HEADER;
    let covered = if has_pseudo_header { add(address_delta, port_delta) } else { port_delta };
    let Some(before) = skb.load::<u16>(at) else { return Ok(port_delta) };
    if protocol == UDP && before == 0 {
        return Ok(port_delta);
    }
    let mut after = updated(before, covered);
    if protocol == UDP && after == 0 {
        after = 0xffff;
    }
    skb.store(at, bytes_of(&after), 2)?;
    Ok(add(port_delta, add(!u32::from(before), u32::from(after))))
}
