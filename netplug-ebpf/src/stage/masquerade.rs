//! Pods' packets leave as the uplink; their answers find back.
//!
//! # Out
//! Masqueraded: what a pod's own address sends, to where pods are not known. Not: to a non-masquerade CIDR, to
//! multicast or link-local addresses, and answers to a connection that came in from outside to the pod's address.
//! What the host's own NAT has given the uplink's address already goes as it is, and has its port reserved.
//! # In
//! An answer's destination becomes the pod again, before the host sees it: the host's conntrack knows pods' flows
//! by the pods' own addresses, both ways.
//! # To a pod
//! What came from outside to a pod's own address, and the host let through, has its answers left as they are.
//! # Dropped
//! What would have to be masqueraded and cannot: a pod's address is of no use outside. A connection of the host's NAT that
//! has got the very tuple of a masqueraded one: the pod would get its answers.

use netplug_common::counter::Counter;
use netplug_common::decide::opening::is_first;
use netplug_common::ip::Address;
use netplug_common::maps::config::{Config, MASQUERADE};
use netplug_common::tuple::{Port, TCP, Tuple};

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
    let Tuple { source, destination, .. } = &packet.tuple;
    if address.is_unspecified() {
        return Ok(());
    }
    if *source == address && packet.kind != Kind::Other {
        let is_held = mapping::reserve(packet, &Clock::new(config));
        return if is_held { Ok(()) } else { Err(Counter::TupleInUse) };
    }
    if maps::endpoint::<V>(source).is_none()
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
        port => port,
    };
    if !leave_as(skb, packet, &address, port) {
        return Err(Counter::RewriteFailed);
    }
    report::count(skb, Counter::Masqueraded);
    log::masqueraded(skb, port as u16);
    Ok(())
}

/// Gives a packet its new source. Out of line: the search for a port has the stack to itself.
#[inline(never)]
fn leave_as<V: Header>(skb: Skb, packet: &mut Packet<V>, address: &V::Address, port: u32) -> bool {
    let port = Port::new(port as u16);
    let to = Tuple { source: *address, source_port: port, ..packet.tuple };
    translate(skb, packet, &to).is_ok()
}

/// Has the host's own echo hold its identifier: no socket tells of it.
#[inline(always)]
pub fn own<V: Header>(skb: Skb) {
    let (Some(config), Some(uplink)) = (maps::config(), maps::uplink(skb.ifindex())) else {
        return;
    };
    if config.flags & MASQUERADE == 0 {
        return;
    }
    let Some(packet) = V::any(skb) else { return };
    if packet.kind == Kind::Echo
        && packet.icmp_type == V::ECHO_REQUEST
        && packet.tuple.source == V::masquerade_address(uplink)
    {
        mapping::take_for_host(&packet, &Clock::new(config));
    }
}

/// Gives an answer its pod's address back.
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
        if !may_have_lost_its_mapping(skb, packet, config) {
            return Ok(());
        }
        let has_searched = mapping::rebuild::<V>(&clock);
        found = mapping::inbound(skb, packet, &clock, &mut to);
        if found == Found::Nothing && !has_searched && packet.tuple.protocol == TCP {
            // The host would answer with a reset, and it may be a live connection's. Whatever else it is, it is sent again.
            return Err(Counter::NoMapping);
        }
    }
    if found == Found::Translation {
        translate(skb, packet, &to).map_err(|()| Counter::RewriteFailed)?;
        report::count(skb, Counter::Unmasqueraded);
    }
    Ok(())
}

/// Notes a packet from outside that the host hands to a pod.
#[inline(always)]
pub fn arrived<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) {
    if config.flags & MASQUERADE != 0
        && packet.kind != Kind::Other
        && maps::uplink(skb.received_by()).is_some()
        && !V::is_exempt(&packet.tuple.source)
        && is_for_pod_behind::<V>(skb, packet)
    {
        mapping::write_identity(packet, &Clock::new(config));
    }
}

#[inline(always)]
fn is_for_pod_behind<V: Header>(skb: Skb, packet: &Packet<V>) -> bool {
    maps::endpoint::<V>(&packet.tuple.destination)
        .is_some_and(|endpoint| endpoint.ifindex == skb.ifindex())
}

/// Whether a packet without a mapping looks like an answer whose half was lost: to an uplink's address and a port that
/// masquerade may have given, not the first of a connection, and for no socket of the host's.
#[inline(always)]
fn may_have_lost_its_mapping<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) -> bool {
    config.masquerade_ports.contains(packet.tuple.destination_port.get())
        && !is_first(packet.tcp_flags)
        && V::fast_addresses(config).contains(&packet.tuple.destination)
        && !(packet.kind == Kind::Echo && packet.icmp_type == V::ECHO_REQUEST)
        && !mapping::has_socket(skb, &packet.tuple)
}
