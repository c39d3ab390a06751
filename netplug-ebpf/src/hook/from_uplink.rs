//! A packet from outside *enters* by an uplink.
//!
//! Host: 1 of a VLAN, for the host's own ephemeral ports: not ours
//! Hit:  2 the host has decided this flow already: follow it
//! Miss: 3 a call of a HostPort, or an answer to a masqueraded flow, gets its pod's address  4 remember it, to learn from it, and a caller of
//!       a pod's own address so that the answers are not masqueraded

use netplug_common::maps::config::{Config, EPHEMERAL_HOST_PORTS, HOST_PORTS, STEERING_ALWAYS};

use crate::apart::Apart;
use crate::hook::HEADERS;
use crate::packet::{Header, Kind, Packet};
use crate::skb::Skb;
use crate::stage::{flow_cache, own, visit};
use crate::verdict::{Outcome, Verdict};
use crate::{mapping, maps};

/// The program for one family; divided as `from_pod` is.
#[inline(always)]
pub fn run<V: Apart>(skb: Skb) -> Outcome {
    match hit::<V>(skb) {
        Some(outcome) => outcome,
        None => miss::<V>(skb),
    }
}

#[inline(never)]
fn hit<V: Header>(skb: Skb) -> Option<Outcome> {
    let config = maps::config()?;
    if skb.is_of_vlan() {
        return Some(Ok(Verdict::Next));
    }
    skb.reach(HEADERS);
    let packet = V::plain(skb)?;
    if own::is_for_host(&packet, config) && !is_host_port(&packet, config) {
        return Some(Ok(Verdict::Next));
    }
    // What is for another station's MAC, or for all of them, the host does not forward, unless a macvlan has it; a priority tag
    // would go along, and the host takes it off.
    if config.steering == STEERING_ALWAYS || skb.is_tagged() || !skb.is_for_this_station() {
        return None;
    }
    flow_cache::follow(skb, &packet, config)
}

#[inline(never)]
fn miss<V: Apart>(skb: Skb) -> Outcome {
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    if skb.marker() == config.marker {
        // An uplink below has seen to it.
        skb.set_marker(0);
        return Ok(Verdict::Next);
    }
    let mut packet = Packet::blank();
    if !V::parse(skb, &mut packet) {
        return Ok(Verdict::Next);
    }
    let Some(scratch) = V::scratch() else { return Ok(Verdict::Next) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let entered = unsafe { &mut (*scratch).entered };
    *entered = packet.tuple;
    match packet.kind {
        Kind::Error => V::unmasquerade_error(skb, &mut packet)?,
        Kind::Later => V::follow_inbound(skb, &mut packet)?,
        _ => {
            if config.flags & HOST_PORTS != 0 {
                V::address_call(skb, &mut packet)?;
            }
            if packet.tuple == *entered {
                V::unmasquerade(skb, &mut packet)?;
            } else {
                // By its pod's address, which may be called by the same ports, an uplink upon this one would not know it.
                skb.set_marker(config.marker);
            }
        }
    }
    if packet.fragment != 0 {
        V::note_fragment(skb, &packet, entered, true)?;
    }
    if packet.tuple == *entered && maps::endpoint::<V>(&entered.destination).is_some() {
        visit::remember_call(skb, &packet, config);
    } else {
        visit::remember(skb, entered, &packet, config);
    }
    Ok(Verdict::Next)
}

/// Whether a packet to one of the host's ephemeral ports calls a HostPort all the same.
#[inline(always)]
fn is_host_port<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    config.flags & EPHEMERAL_HOST_PORTS != 0 && mapping::is_host_port(config, &packet.tuple)
}
