//! Pods' packets leave as the uplink; their answers find back.
//!
//! # Out
//! Masqueraded: what a pod's own address sends, to where pods are not known. Not: to a non-masquerade CIDR, to
//! multicast addresses or (unless that is wanted) link-local ones, and answers to a connection that came in from outside to
//! the pod's address.
//! What is exempt may change: a TCP connection stays as it began.
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
use netplug_common::decide::opening::{RST, is_first};
use netplug_common::ip::Address;
use netplug_common::maps::config::{Config, MASQUERADE, masquerades_link_local};
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
    if is_ours(packet, config) {
        let is_held = mapping::reserve(packet, &Clock::new(config));
        // By another uplink's address it may be a pod's packet that we have masqueraded there: that one lies upon this.
        return if is_held || *source != address { Ok(()) } else { Err(Counter::TupleInUse) };
    }
    if maps::endpoint::<V>(source).is_none()
        || !destination.is_for_one_host()
        || (destination.is_link_local() && !masquerades_link_local::<V>(config.flags))
        || (V::is_exempt(destination) && !began_masqueraded(packet, config))
    {
        return Ok(());
    }
    if !packet.has_ports() {
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

/// Whether a packet to where pods are known belongs to a connection that began before that was so: it ends as it began.
#[inline(always)]
fn began_masqueraded<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    packet.has_ports()
        && packet.tuple.protocol == TCP
        && !is_first(packet.tcp_flags)
        && mapping::is_translated(&packet.tuple, &Clock::new(config))
}

/// Gives a packet its new source. Out of line: the search for a port has the stack to itself.
#[inline(never)]
fn leave_as<V: Header>(skb: Skb, packet: &mut Packet<V>, address: &V::Address, port: u32) -> bool {
    let port = Port::new(port as u16);
    let to = Tuple { source: *address, source_port: port, ..packet.tuple };
    translate(skb, packet, &to).is_ok()
}

/// Whether a packet leaves by an address and a port that masquerade might give to another, and is not a pod's.
#[inline(always)]
fn is_ours<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    packet.has_ports()
        && V::fast_addresses(config).contains(&packet.tuple.source)
        && config.masquerade_ports.contains(packet.tuple.source_port.get())
}

/// Has what the host itself sends hold its port, where no socket tells of it: identifiers of its echoes, and ports that its
/// own NAT has given. Most of its packets are those of a socket of that port, and done with.
#[inline(always)]
pub fn own<V: Header>(skb: Skb) {
    let Some(config) = maps::config() else { return };
    let packet = if V::is_icmp(skb) { V::any(skb) } else { V::plain(skb) };
    let Some(packet) = packet else { return };
    let is_told = match packet.kind {
        Kind::Echo => packet.icmp_type != V::ECHO_REQUEST,
        // Resets, and what answers for sockets that are gone, come from a raw socket, whose port is its protocol.
        _ => skb.sender_port().is_none_or(|port| {
            port == packet.tuple.source_port.get()
                || port == u16::from(packet.tuple.protocol)
                || packet.tcp_flags & RST != 0
        }),
    };
    if !is_told && config.flags & MASQUERADE != 0 && is_ours(&packet, config) {
        mapping::take_for_host(&packet, &Clock::new(config));
    }
}

/// Gives an answer its pod's address back.
#[inline(always)]
pub fn inbound<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    if config.flags & MASQUERADE == 0 || !packet.has_ports() {
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

/// Notes a packet that the host hands to a pod, if it came in from outside to that very address: by what was noted of it when
/// it did, since one that was translated looks the same by now.
#[inline(always)]
pub fn arrived<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) {
    if config.flags & MASQUERADE == 0 || !packet.has_ports() || V::is_exempt(&packet.tuple.source) {
        return;
    }
    let Some(visit) = V::visits().get_ptr(skb.hash()) else { return };
    // SAFETY: the verifier knows the pointer to be a value's. One that is overwritten meanwhile is another tuple's.
    let (is_call, entered_by) = unsafe { ((*visit).entered == packet.tuple, (*visit).entered_by) };
    if is_call && maps::uplink(entered_by).is_some() && is_for_pod_behind::<V>(skb, packet) {
        mapping::write_identity(packet, &Clock::new(config));
    }
}

#[inline(always)]
fn is_for_pod_behind<V: Header>(skb: Skb, packet: &Packet<V>) -> bool {
    maps::endpoint::<V>(&packet.tuple.destination)
        .is_some_and(|endpoint| endpoint.ifindex == skb.ifindex())
}

/// Whether a packet without a mapping looks like an answer whose half was lost: to an uplink's address and a port that
/// masquerade may have given, by one that masquerade is for, not the first of a connection, and for no socket of the host's.
#[inline(always)]
fn may_have_lost_its_mapping<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) -> bool {
    config.masquerade_ports.contains(packet.tuple.destination_port.get())
        && !is_first(packet.tcp_flags)
        && V::fast_addresses(config).contains(&packet.tuple.destination)
        && !V::is_exempt(&packet.tuple.source)
        && (packet.kind != Kind::Echo || packet.icmp_type == V::ECHO_REPLY)
        && !mapping::has_socket(skb, &packet.tuple)
}
