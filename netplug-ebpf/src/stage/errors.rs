//! ICMP errors about masqueraded flows: path MTU discovery, traceroute and refusals work from inside a pod.
//!
//! An error is about the flow of the packet that it quotes, and is translated as that flow is, quote and all.
//! # In
//! About what a pod sent: it becomes the pod's, as the quoted packet becomes what the pod sent.
//! # Out
//! What a pod says about an answer that it got: it leaves as the uplink, quoting what came there.
//! # Left as it is
//! What is about no mapping, and what quotes another's packet than the one that it goes to, or comes from.

use netplug_common::counter::Counter;
use netplug_common::ip::Address;
use netplug_common::maps::config::{MASQUERADE, masquerades_link_local};
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
    if config.flags & MASQUERADE == 0 || quote.tuple.source != packet.tuple.destination {
        return Ok(());
    }
    let answers = quote.tuple.reversed();
    let Some((address, port)) = mapping::translation_in::<V>(&answers, &Clock::new(config)) else {
        return Ok(());
    };
    let inner = Tuple { source: address, source_port: port, ..quote.tuple };
    let outer = Tuple { destination: address, ..packet.tuple };
    quote::translate(skb, packet, &quote, &outer, &inner).map_err(|()| Counter::RewriteFailed)?;
    report::count(skb, Counter::Unmasqueraded);
    Ok(())
}

/// Translates an error of a pod's that leaves.
#[inline(always)]
pub fn outbound<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let (Some(config), Some(uplink)) = (maps::config(), maps::uplink(skb.ifindex())) else {
        return Ok(());
    };
    let Tuple { source, destination, .. } = &packet.tuple;
    if config.flags & MASQUERADE == 0
        || V::masquerade_address(uplink).is_unspecified()
        || maps::endpoint::<V>(source).is_none()
        || (destination.is_link_local() && !masquerades_link_local::<V>(config.flags))
        || V::is_exempt(destination)
    {
        return Ok(());
    }
    let Some(quote) = quote::read(skb, packet) else { return Err(Counter::NotTranslatable) };
    if quote.tuple.destination != *source {
        return Err(Counter::NotTranslatable);
    }
    let sent = quote.tuple.reversed();
    match mapping::translation_out::<V>(&sent, &Clock::new(config)) {
        mapping::Out::AsItIs => Ok(()),
        mapping::Out::Unknown => Err(Counter::NotTranslatable),
        mapping::Out::As(address, port) => {
            let inner = Tuple { destination: address, destination_port: port, ..quote.tuple };
            let outer = Tuple { source: address, ..packet.tuple };
            quote::translate(skb, packet, &quote, &outer, &inner)
                .map_err(|()| Counter::RewriteFailed)?;
            report::count(skb, Counter::Masqueraded);
            Ok(())
        }
    }
}
