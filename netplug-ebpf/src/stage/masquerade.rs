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
use netplug_common::decide::port_choice::is_privileged;
use netplug_common::ip::Address;
use netplug_common::maps::config::{Config, HOST_PORTS, MASQUERADE, masquerades_link_local};
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::{Port, SCTP, TCP, Tuple};

use crate::apart::Apart;
use crate::mapping::{self, Clock, Found};
use crate::packet::rewrite::become_tuple;
use crate::packet::{Header, Kind, Packet};
use crate::report;
use crate::skb::Skb;
use crate::stage::visit::is_visits;
use crate::{log, maps};

/// Masquerades a packet that leaves, where that is due.
#[inline(always)]
pub fn outbound<V: Apart>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let is_by_host_port = leaves_by_host_port(packet, config);
    if config.flags & MASQUERADE == 0 && !is_by_host_port {
        return Ok(());
    }
    let Some(uplink) = maps::uplink(skb.ifindex()) else { return Ok(()) };
    let address = V::masquerade_address(uplink);
    let Tuple { source, destination, .. } = &packet.tuple;
    if is_by_host_port || (!address.is_unspecified() && is_ours(packet, config)) {
        let is_held = if is_by_host_port {
            mapping::keep_from_callers(packet, config)
        } else {
            mapping::reserve(packet, &Clock::outward(config))
        };
        // By another uplink's address it may be a pod's packet that we have masqueraded there: that one lies upon this.
        return if is_held || *source != address { Ok(()) } else { Err(Counter::TupleInUse) };
    }
    if address.is_unspecified()
        || maps::endpoint::<V>(source).is_none()
        || !destination.is_for_one_host()
        || (destination.is_link_local() && !masquerades_link_local::<V>(config.flags))
        || (V::is_exempt(destination) && !began_masqueraded(packet, config))
    {
        return Ok(());
    }
    if packet.kind == Kind::Later {
        return V::follow_outbound(skb, packet);
    }
    if !packet.has_ports() {
        return Err(Counter::NotTranslatable);
    }
    let clock = Clock::outward(config);
    let port = match mapping::source_for(skb, packet, &clock, &address) {
        mapping::AS_IT_IS => return Ok(()),
        mapping::NONE_LEFT => return Err(Counter::PortsExhausted),
        mapping::NO_ROOM => return Err(Counter::MappingsFull),
        port => port,
    };
    leave_as(skb, packet, &address, port)?;
    skb.set_marker(config.marker);
    report::count(skb, Counter::Masqueraded);
    log::masqueraded(skb, port as u16);
    Ok(())
}

/// Whether a packet to where pods are known belongs to a connection that began before that was so: it ends as it began.
#[inline(always)]
fn began_masqueraded<V: Header>(packet: &Packet<V>, config: &'static Config) -> bool {
    packet.has_ports()
        && packet.tuple.protocol == TCP
        && !is_first(packet.tcp_flags)
        && mapping::is_translated(&packet.tuple, &Clock::outward(config))
}

/// Gives a packet its new source. Out of line: the search for a port has the stack to itself.
#[inline(never)]
fn leave_as<V: Apart>(
    skb: Skb,
    packet: &mut Packet<V>,
    address: &V::Address,
    port: u32,
) -> Result<(), Counter> {
    let port = Port::new(port as u16);
    let to = Tuple { source: *address, source_port: port, ..packet.tuple };
    become_tuple(skb, packet, &to)
}

/// Notes what has become of a fragment that had entered, or come to leave, as `entered`; those behind it follow.
#[inline(always)]
pub fn first_fragment<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    entered: &Tuple<V>,
    is_inward: bool,
) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    if packet.kind == Kind::Later {
        return Ok(());
    }
    if !is_inward {
        return mapping::note_first(skb, packet, entered, &Clock::outward(config), true);
    }
    // The host has had its own already.
    let is_pods = packet.tuple != *entered;
    if !is_pods && !maps::is_nodes::<V>(config, &entered.destination) {
        return Ok(());
    }
    mapping::note_first(skb, packet, entered, &Clock::inward(config), is_pods)
}

/// Has a later fragment of a pod's leave as the first of its datagram.
#[inline(always)]
pub fn later_outbound<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let clock = Clock::outward(config);
    if mapping::follow(skb, packet, &clock)? {
        report::count(skb, Counter::Masqueraded);
        return Ok(());
    }
    let is_kept = mapping::keep_later(skb, packet, &clock);
    Err(if is_kept { Counter::FragmentKept } else { Counter::FirstMissing })
}

/// Has a later fragment from outside go where the first of its datagram went.
#[inline(always)]
pub fn later_inbound<V: Header>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let clock = Clock::inward(config);
    if mapping::follow(skb, packet, &clock)? {
        if !maps::is_nodes::<V>(config, &packet.tuple.destination) {
            report::count(skb, Counter::Unmasqueraded);
        }
    } else if maps::is_nodes::<V>(config, &packet.tuple.destination)
        && mapping::keep_later(skb, packet, &clock)
    {
        report::count(skb, Counter::FragmentKept);
    }
    Ok(())
}

/// Has a later fragment of what a pod sends, or gets, go where the first of its datagram went, if a HostPort led it.
#[inline(always)]
pub fn later_of_pods<V: Header>(
    skb: Skb,
    packet: &mut Packet<V>,
    is_inward: bool,
) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let clock = if is_inward { Clock::inward(config) } else { Clock::outward(config) };
    mapping::follow(skb, packet, &clock).map(drop)
}

/// Whether a packet leaves by an address and a port that masquerade might give to another, and is not a pod's.
#[inline(always)]
fn is_ours<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    packet.has_ports()
        && (mapping::may_be_pods::<V>(config, packet.tuple.source_port)
            || opens_by_privileged_port(packet))
        && maps::is_nodes::<V>(config, &packet.tuple.source)
}

/// Whether a packet opens a connection by a port that masquerade gives to nobody but who has a privileged one: no pod may have any
/// yet, and none is to get this. (What answers by such ports, as services do, opens nothing.)
#[inline(always)]
fn opens_by_privileged_port<V: Header>(packet: &Packet<V>) -> bool {
    is_first(packet.tcp_flags) && is_privileged(packet.tuple.protocol, packet.tuple.source_port)
}

/// Whether the address and the port that a packet, which is no pod's, leaves by are a HostPort's.
#[inline(always)]
fn leaves_by_host_port<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    config.flags & HOST_PORTS != 0
        && packet.has_ports()
        && packet.kind != Kind::Echo
        && maps::is_nodes::<V>(config, &packet.tuple.source)
        && mapping::is_host_port(config, &packet.tuple.reversed())
}

/// Has what the host itself sends hold its port, where no socket tells of it: identifiers of its echoes, and ports that its
/// own NAT has given. Most of its packets are those of a socket of that port, by which masquerade knows: of those only the first is
/// looked at, and datagrams.
#[inline(always)]
pub fn own<V: Apart>(skb: Skb) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    let mut packet = Packet::blank();
    match V::plain(skb) {
        Some(plain) => packet = plain,
        None if !V::parse(skb, &mut packet) => return Ok(()),
        None => {}
    }
    let is_told = is_told(skb, &packet);
    let may_get_calls = may_get_calls(&packet, config, is_told);
    if may_get_calls && mapping::keep_from_callers(&packet, config) {
        return Ok(());
    }
    let clock = Clock::outward(config);
    if config.flags & MASQUERADE == 0 || !(may_get_calls || is_ours(&packet, config)) {
        return if may_get_calls { Err(Counter::TupleInUse) } else { Ok(()) };
    }
    if packet.kind == Kind::Echo {
        if packet.icmp_type == V::ECHO_REQUEST {
            mapping::take_for_host(&packet, &clock);
        }
        return Ok(());
    }
    let is_first = packet.tuple.protocol != TCP || is_first(packet.tcp_flags);
    let may_begin = if is_told {
        is_first
    } else {
        // Masquerade finds no socket by its tuple: it is held here, if no pod has it already.
        !mapping::is_moved(skb, &packet, &clock)
            && (may_get_calls || !mapping::reserve(&packet, &clock))
    };
    match mapping::moved_to(skb, &packet, &clock, may_begin) {
        0 => Ok(()),
        mapping::NONE_LEFT => Err(Counter::PortsExhausted),
        mapping::NO_ROOM => Err(Counter::MappingsFull),
        port => {
            let address = packet.tuple.source;
            leave_as(skb, &mut packet, &address, port)
        }
    }
}

/// Has what the host itself sends to a pod hold its tuple, where the pod's answers would be calls of a HostPort.
#[inline(always)]
pub fn own_to_pod<V: Apart>(skb: Skb, config: &'static Config) -> Result<(), Counter> {
    let mut packet = Packet::blank();
    match V::plain(skb) {
        Some(plain) => packet = plain,
        None if !V::parse(skb, &mut packet) => return Ok(()),
        None => {}
    }
    let is_told = is_told(skb, &packet);
    if may_get_calls(&packet, config, is_told) && !mapping::keep_from_callers(&packet, config) {
        return Err(Counter::TupleInUse);
    }
    Ok(())
}

/// The same for what the host forwards to a pod, as its own NAT has made it. Whether it leaves as the node.
#[inline(always)]
pub fn forwarded_to_pod<V: Apart>(
    packet: &Packet<V>,
    config: &'static Config,
) -> Result<bool, Counter> {
    if !leaves_by_host_port(packet, config) {
        return Ok(false);
    }
    if mapping::keep_from_callers(packet, config) { Ok(true) } else { Err(Counter::TupleInUse) }
}

/// Whether the answers to a packet of the host's own would be calls of a HostPort, since no socket tells of them: datagrams (a
/// socket that is not connected takes any), and what the host's NAT has changed.
#[inline(always)]
fn may_get_calls<V: Header>(packet: &Packet<V>, config: &Config, is_told: bool) -> bool {
    (packet.tuple.protocol != TCP || !is_told) && leaves_by_host_port(packet, config)
}

/// Whether masquerade finds the socket that sent a packet by its tuple, and leaves it its port: not one whose packets the host's
/// NAT has changed, nor one of a protocol whose sockets cannot be looked up. Resets, and what answers for sockets that are
/// gone, come from a raw socket, whose port is its protocol.
#[inline(always)]
fn is_told<V: Header>(skb: Skb, packet: &Packet<V>) -> bool {
    let tuple = &packet.tuple;
    if tuple.protocol == SCTP {
        return false;
    }
    let Some(socket) = skb.sender() else { return true };
    // SAFETY: the verifier knows the pointer to be a socket's.
    let (port, peer_port) = unsafe {
        let port = core::ptr::read_volatile(&raw const (*socket).src_port) as u16;
        (port, core::ptr::read_volatile(&raw const (*socket).dst_port))
    };
    if port == u16::from(tuple.protocol) || packet.tcp_flags & RST != 0 {
        return true;
    }
    // SAFETY: as above.
    let is_connected_elsewhere = peer_port != 0
        && (Port { octets: peer_port.to_ne_bytes() } != tuple.destination_port
            || unsafe { V::peer(socket) } != tuple.destination);
    port == tuple.source_port.get() && !is_connected_elsewhere
}

/// Gives an answer its pod's address back.
#[inline(always)]
pub fn inbound<V: Apart>(skb: Skb, packet: &mut Packet<V>) -> Result<(), Counter> {
    let Some(config) = maps::config() else { return Ok(()) };
    if config.flags & MASQUERADE == 0 {
        return Ok(());
    }
    if !packet.has_ports() {
        return Ok(());
    }
    let clock = Clock::inward(config);
    let mut to = packet.tuple;
    let mut found = mapping::inbound(skb, packet, &clock, &mut to);
    if found == Found::Nothing {
        if !may_have_lost_its_mapping(skb, packet, config) {
            return Ok(());
        }
        let has_searched = V::rebuild();
        found = mapping::inbound(skb, packet, &clock, &mut to);
        if found == Found::Nothing && !has_searched && packet.tuple.protocol == TCP {
            // The host would answer with a reset, and it may be a live connection's. Whatever else it is, it is sent again.
            return Err(Counter::NoMapping);
        }
    }
    if found == Found::Translation || found == Found::Moved {
        become_tuple(skb, packet, &to)?;
        report::count(skb, Counter::Unmasqueraded);
    }
    if found == Found::Moved {
        skb.set_marker(config.marker);
    }
    Ok(())
}

/// Notes a packet that the host hands to a pod, if it came in from outside to that very address: by what was noted of it when
/// it did, since one that was translated looks the same by now. Its sender the host may have changed: answers leave as what
/// came in.
#[inline(always)]
pub fn arrived<V: Apart>(skb: Skb, packet: &mut Packet<V>, config: &'static Config) {
    if config.flags & MASQUERADE == 0 || !packet.has_ports() {
        return;
    }
    let (Some(visit), Some(scratch)) = (V::visits().get_ptr(skb.hash()), V::scratch()) else {
        return;
    };
    // SAFETY: the verifier knows both pointers to be values'; the scratch is this CPU's. One that is overwritten meanwhile is
    // another tuple's, or does not fit its seal.
    let visit = unsafe {
        core::ptr::copy_nonoverlapping(visit, &raw mut (*scratch).visit, 1);
        &(*scratch).visit
    };
    let Visit { entered, entered_by, .. } = visit;
    let is_call = entered.destination == packet.tuple.destination
        && entered.destination_port == packet.tuple.destination_port
        && (*entered == packet.tuple || is_visits(skb, packet, visit, false));
    if is_call
        && maps::uplink(*entered_by).is_some()
        && !V::is_exempt(&entered.source)
        && is_for_pod_behind::<V>(skb, packet)
    {
        let left = core::mem::replace(&mut packet.tuple, *entered);
        mapping::write_identity(packet, &Clock::inward(config));
        packet.tuple = left;
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
    mapping::may_be_pods::<V>(config, packet.tuple.destination_port)
        && !is_first(packet.tcp_flags)
        && maps::is_nodes::<V>(config, &packet.tuple.destination)
        && !V::is_exempt(&packet.tuple.source)
        && (packet.kind != Kind::Echo || packet.icmp_type == V::ECHO_REPLY)
        && !mapping::has_socket(skb, &packet.tuple)
}
