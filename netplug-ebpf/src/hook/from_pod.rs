//! A pod speaks. TC ingress of its host end: the packet *enters*.
//!
//! Hit:  1 the host has decided this flow already: follow it
//! Miss: 2 is the source its own  3 may the host be spared even now (`direct`)  4 a call of a HostPort gets
//!       its pod's address  5 remember it, to learn from it  6 bring it before the host, past the bridge
//!
//! From a port of an adopted bridge: a miss, always, and 6 alone.

use netplug_common::counter::Counter;
use netplug_common::maps::config::{Config, HOST_PORTS, STEERING_ALWAYS};
use netplug_common::maps::port::{ADOPTED, PodPort};
use netplug_common::tuple::Tuple;

use crate::apart::Apart;
use crate::hook::HEADERS;
use crate::maps;
use crate::packet::{Header, Kind, Packet};
use crate::report;
use crate::skb::Skb;
use crate::stage::{direct, flow_cache, guard, steer, visit};
use crate::verdict::{Outcome, Verdict};

/// The program for one family. Hit and miss are functions of their own: a program's calls share 512 bytes of stack,
/// and each of the two needs most of it.
#[inline(always)]
pub fn run<V: Apart + guard::Rules>(skb: Skb) -> Outcome {
    match hit::<V>(skb) {
        Some(outcome) => outcome,
        None => miss::<V>(skb),
    }
}

#[inline(never)]
fn hit<V: Header>(skb: Skb) -> Option<Outcome> {
    let config = maps::config()?;
    skb.reach(HEADERS);
    if skb.is_tagged() || config.steering == STEERING_ALWAYS {
        return None;
    }
    flow_cache::follow(skb, &V::plain(skb)?, config)
}

#[inline(never)]
fn miss<V: Apart + guard::Rules>(skb: Skb) -> Outcome {
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Next) };
    let mut packet = Packet::blank();
    if !V::parse(skb, &mut packet) {
        return Ok(Verdict::Next);
    }
    guard::check_tag(skb, port, true)?;
    guard::check(skb, &packet, port)?;
    if skb.is_tagged() {
        // Another VLAN's, for the bridge to part.
        return Ok(Verdict::Next);
    }
    if port.flags & ADOPTED != 0 {
        // Nor has it been guarded: it has not that flag.
        report::count(skb, Counter::Aside);
        return steer::to_host(skb, &packet, port);
    }
    if open(skb, &packet, port, config)
        && let Some(outcome) = follow(skb, &packet, config)
    {
        return outcome;
    }
    let Some(scratch) = V::scratch() else { return Ok(Verdict::Next) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let entered = unsafe { &mut (*scratch).entered };
    *entered = packet.tuple;
    if config.flags & HOST_PORTS != 0 {
        address::<V>(skb, &mut packet, entered)?;
    }
    visit::remember(skb, entered, &packet, config);
    steer::to_host(skb, &packet, port)
}

/// Addresses what calls a HostPort to its pod.
#[inline(always)]
fn address<V: Apart>(skb: Skb, packet: &mut Packet<V>, entered: &Tuple<V>) -> Result<(), Counter> {
    match packet.kind {
        Kind::Error => V::unmasquerade_error(skb, packet)?,
        Kind::Later => V::follow(skb, packet, true)?,
        _ => V::address_call(skb, packet)?,
    }
    if packet.fragment != 0 {
        V::note_fragment(skb, packet, entered, true)?;
    }
    Ok(())
}

/// Out of line, for the stack.
#[inline(never)]
fn open<V: Header>(skb: Skb, packet: &Packet<V>, port: &PodPort, config: &Config) -> bool {
    direct::open(skb, packet, port, config).is_some()
}

/// Out of line, for the stack.
#[inline(never)]
fn follow<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) -> Option<Outcome> {
    flow_cache::follow_new(skb, packet, config)
}

/// The program for ARP: guarded, and otherwise the bridge's.
#[inline(always)]
pub fn run_arp(skb: Skb) -> Outcome {
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Next) };
    guard::check_tag(skb, port, true)?;
    guard::check_arp(skb, port)?;
    Ok(Verdict::Next)
}

/// The program for a frame that has a tag behind its tag.
#[inline(always)]
pub fn run_tagged(skb: Skb) -> Outcome {
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Next) };
    guard::check_tag(skb, port, false)?;
    Ok(Verdict::Next)
}
