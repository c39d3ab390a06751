//! Pods' packets leave as the uplink; their answers find back.
//!
//! # Out
//! Masqueraded: what a pod's own address sends, to where pods are not known. Not: to a non-masquerade CIDR, to
//! multicast or link-local addresses, and answers to a connection that came in from outside to the pod's address.
//! # In
//! An answer's destination becomes the pod again, before the host sees it: the host's conntrack knows pods' flows
//! by the pods' own addresses, both ways.
//! # Dropped
//! What would have to be masqueraded and cannot: a pod's address is of no use outside.

use netplug_common::counter::Counter;
use netplug_common::decide::opening::is_first;
use netplug_common::ip::Address;
use netplug_common::maps::config::{Config, MASQUERADE};
use netplug_common::tuple::{Port, Tuple};

use crate::apart::Apart;
use crate::mapping::{self, Clock, Found};
use crate::packet::rewrite::translate;
use crate::packet::{Header, Kind, Packet};
use crate::report;
use crate::skb::Skb;
use crate::{log, maps};

/// Masquerades a packet that leaves, where that is due.
#[inline(always)]
pub fn outbound<V: Apart>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    if config.flags & MASQUERADE == 0 {
        return Ok(());
    }
    let Some(uplink) = maps::uplink(skb.ifindex()) else { return Ok(()) };
    let address = V::masquerade_address(uplink);
    let destination = &packet.tuple.destination;
    if address.is_unspecified()
        || maps::endpoint::<V>(&packet.tuple.source).is_none()
        || !destination.is_for_one_host()
        || destination.is_link_local()
        || V::is_exempt(destination)
    {
        return Ok(());
    }
    if packet.kind == Kind::Other {
        return Err(Counter::NotTranslatable);
    }
    let clock = Clock::new(config);
    let port = match mapping::source_for(skb, packet, &clock, &address) {
        mapping::AS_IT_IS => return Ok(()),
        mapping::NONE_LEFT => return Err(Counter::PortsExhausted),
        port => Port::new(port as u16),
    };
    let to = Tuple { source: address, source_port: port, ..packet.tuple };
    translate(skb, packet, &to).map_err(|()| Counter::RewriteFailed)?;
    report::count(skb, Counter::Masqueraded);
    log::masqueraded(skb, port.get());
    Ok(())
}

/// Gives an answer its pod's address back, and notes who calls a pod by its own address.
#[inline(always)]
pub fn inbound<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    if config.flags & MASQUERADE == 0 || packet.kind == Kind::Other {
        return Ok(());
    }
    let clock = Clock::new(config);
    let mut to = packet.tuple;
    let mut found = mapping::inbound(skb, packet, &clock, &mut to);
    if found == Found::Nothing {
        if maps::endpoint::<V>(&packet.tuple.destination).is_some() {
            if !V::is_exempt(&packet.tuple.source) {
                mapping::write_identity(packet, &clock);
            }
            return Ok(());
        }
        if !may_have_lost_its_mapping(skb, packet, config) {
            return Ok(());
        }
        let has_searched = mapping::rebuild::<V>(&clock);
        found = mapping::inbound(skb, packet, &clock, &mut to);
        if found == Found::Nothing && !has_searched {
            // The host would answer with a reset, and it may be a live connection's.
            return Err(Counter::NoMapping);
        }
    }
    if found == Found::Translation {
        translate(skb, packet, &to).map_err(|()| Counter::RewriteFailed)?;
        report::count(skb, Counter::Unmasqueraded);
    }
    Ok(())
}

/// Whether a packet without a mapping looks like an answer whose half was lost: to a port that masquerade may
/// have given, not the first of a connection, and for no socket of the host's.
#[inline(always)]
fn may_have_lost_its_mapping<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) -> bool {
    config.masquerade_ports.contains(packet.tuple.destination_port.get())
        && !is_first(packet.tcp_flags)
        && V::fast_addresses(config).contains(&packet.tuple.destination)
        && !(packet.kind == Kind::Echo && packet.icmp_type == V::ECHO_REQUEST)
        && !mapping::has_socket(skb, &packet.tuple)
}
