//! ICMP errors about masqueraded flows: path MTU discovery, traceroute and refusals work from inside a pod.
//!
//! An error is about the flow of the packet that it quotes, and is translated as that flow is, quote and all.
//! # In
//! About what a pod sent: it becomes the pod's, as the quoted packet becomes what the pod sent.
//! # Out
//! What a pod says about an answer that it got: it leaves as the uplink, quoting what came there.
//! # The host's own
//! About what it could not hand to a pod, or not hand on: quotes what had come to the node.
//! # Left as it is
//! What is about no mapping, and what quotes another's packet than the one that it goes to, or comes from.

use netplug_common::counter::Counter;
use netplug_common::ip::Address;
use netplug_common::maps::config::{Config, HOST_PORTS, MASQUERADE, masquerades_link_local};
use netplug_common::tuple::Tuple;

use crate::mapping::{self, Clock};
use crate::maps;
use crate::packet::{Header, Packet, quote};
use crate::report;
use crate::skb::Skb;

/// Translates an error that comes in.
#[inline(always)]
pub fn inbound<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let Some(quote) = quote::read(skb, packet) else { return Ok(()) };
    if config.flags & (MASQUERADE | HOST_PORTS) == 0
        || quote.tuple.source != packet.tuple.destination
    {
        return Ok(());
    }
    let answers = quote.tuple.reversed();
    let Some((address, port)) = mapping::translation_in::<V>(&answers, &Clock::inward(config))
    else {
        return Ok(());
    };
    let Some(scratch) = V::scratch() else { return Ok(()) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let inner = unsafe { &mut (*scratch).tuple };
    *inner = quote.tuple;
    inner.source = address;
    inner.source_port = port;
    let outer = Tuple { destination: address, ..packet.tuple };
    quote::translate(skb, packet, &quote, &outer, inner).map_err(|()| Counter::RewriteFailed)?;
    report::count(skb, Counter::Unmasqueraded);
    Ok(())
}

/// Translates an error of a pod's that leaves, for the outside or another pod.
#[inline(always)]
pub fn outbound<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let is_due = is_masqueraded(skb, packet, config);
    let Some(quote) = quote::read(skb, packet) else { return unless(is_due) };
    if quote.tuple.destination != packet.tuple.source {
        return unless(is_due);
    }
    let sent = quote.tuple.reversed();
    let (address, port) = match mapping::translation_out::<V>(&sent, &Clock::outward(config)) {
        mapping::Out::AsHostPort(address, port) => (address, port),
        mapping::Out::As(address, port) if is_due => (address, port),
        mapping::Out::AsItIs | mapping::Out::As(..) => return Ok(()),
        mapping::Out::Unknown => return unless(is_due),
    };
    let Some(scratch) = V::scratch() else { return Ok(()) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let inner = unsafe { &mut (*scratch).tuple };
    *inner = quote.tuple;
    inner.destination = address;
    inner.destination_port = port;
    let outer = Tuple { source: address, ..packet.tuple };
    quote::translate(skb, packet, &quote, &outer, inner).map_err(|()| Counter::RewriteFailed)?;
    report::count(skb, Counter::Masqueraded);
    Ok(())
}

/// Translates what an error of the host's own quotes: it is about a packet that had come for the node's address, and had a pod's
/// when the host saw it.
#[inline(always)]
pub fn hosts<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let Some(quote) = quote::read(skb, packet) else { return Ok(()) };
    if config.flags & (MASQUERADE | HOST_PORTS) == 0
        || quote.tuple.source != packet.tuple.destination
    {
        return Ok(());
    }
    let sent = quote.tuple.reversed();
    let (address, port) = match mapping::translation_out::<V>(&sent, &Clock::outward(config)) {
        mapping::Out::AsHostPort(address, port) | mapping::Out::As(address, port) => {
            (address, port)
        }
        mapping::Out::AsItIs | mapping::Out::Unknown => return Ok(()),
    };
    let Some(scratch) = V::scratch() else { return Ok(()) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let inner = unsafe { &mut (*scratch).tuple };
    *inner = quote.tuple;
    inner.destination = address;
    inner.destination_port = port;
    let outer = packet.tuple;
    quote::translate(skb, packet, &quote, &outer, inner).map_err(|()| Counter::RewriteFailed)
}

/// What cannot be translated does not leave, where it would have to be.
#[inline(always)]
fn unless(is_due: bool) -> Result<(), Counter> {
    if is_due { Err(Counter::NotTranslatable) } else { Ok(()) }
}

/// Whether a packet is a pod's that leaves by an uplink, to where it is not known.
#[inline(always)]
fn is_masqueraded<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) -> bool {
    let Some(uplink) = maps::uplink(skb.ifindex()) else { return false };
    let Tuple { source, destination, .. } = &packet.tuple;
    config.flags & MASQUERADE != 0
        && !V::masquerade_address(uplink).is_unspecified()
        && maps::endpoint::<V>(source).is_some()
        && (!destination.is_link_local() || masquerades_link_local::<V>(config.flags))
        && !V::is_exempt(destination)
}
