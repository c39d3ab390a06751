//! A packet *leaves* the host for the outside. TC egress of an uplink.
//!
//! 1 the host's own: done, but for errors about what had come for a pod, identifiers of its echoes and ports of its own NAT
//! 2 redirected by us, or changed by an uplink upon this one: done
//! 3 from a pod, to where pods are not known: answers to a HostPort's calls leave as the node, and the rest is masqueraded;
//! errors by what they quote  4 learn what the host, and we, made of the packet

use netplug_common::counter::Counter;
use netplug_common::maps::config::{Config, HOST_PORTS};

use crate::apart::Apart;
use crate::maps;
use crate::packet::{Kind, Packet};
use crate::report;
use crate::skb::Skb;
use crate::verdict::{Outcome, Verdict};

/// The program for one family. What the host sends and what it forwards are functions of their own, each with a stack of
/// its own.
#[inline(always)]
pub fn run<V: Apart>(skb: Skb) -> Outcome {
    if skb.is_tagged() {
        // Another uplink's, a VLAN upon this one, which has seen to it.
        return Ok(Verdict::Next);
    }
    if skb.received_by() != 0 {
        return forwarded::<V>(skb);
    }
    if V::is_icmp(skb) {
        hosts_error::<V>(skb)?;
    }
    V::own(skb)?;
    Ok(Verdict::Next)
}

/// An error of the host's own, if it is one. Out of line.
#[inline(never)]
fn hosts_error<V: Apart>(skb: Skb) -> Result<(), Counter> {
    let mut packet = Packet::blank();
    if V::parse(skb, &mut packet) && packet.kind == Kind::Error {
        V::translate_hosts_error(skb, &mut packet)?;
    }
    Ok(())
}

#[inline(never)]
fn forwarded<V: Apart>(skb: Skb) -> Outcome {
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    if skb.marker() == config.marker {
        // The mark stays, for uplinks below this one.
        return Ok(Verdict::Next);
    }
    report::count(skb, Counter::Left);
    let mut packet = Packet::blank();
    if !V::parse(skb, &mut packet) {
        return Ok(Verdict::Next);
    }
    if packet.kind == Kind::Error {
        V::masquerade_error(skb, &mut packet)?;
        return Ok(Verdict::Next);
    }
    if packet.fragment != 0 {
        return fragment::<V>(skb, &mut packet, config);
    }
    change::<V>(skb, &mut packet, config)?;
    V::learn(skb, &mut packet, true);
    Ok(Verdict::Next)
}

/// Has what pods send leave as the node.
#[inline(always)]
fn change<V: Apart>(skb: Skb, packet: &mut Packet<V>, config: &Config) -> Result<(), Counter> {
    if config.flags & HOST_PORTS != 0 && V::readdress_answer(skb, packet)? {
        skb.set_marker(config.marker);
        return Ok(());
    }
    V::masquerade(skb, packet)
}

/// A fragment that the host forwards.
#[inline(never)]
fn fragment<V: Apart>(skb: Skb, packet: &mut Packet<V>, config: &Config) -> Outcome {
    let Some(scratch) = V::scratch() else { return Ok(Verdict::Next) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let left = unsafe { &mut (*scratch).entered };
    *left = packet.tuple;
    if packet.kind == Kind::Later && config.flags & HOST_PORTS != 0 {
        V::follow(skb, packet, false)?;
    }
    if packet.tuple == *left {
        change::<V>(skb, packet, config)?;
    }
    // Those that are released come here as copies of this one, and are to be changed yet.
    skb.set_marker(0);
    V::note_fragment(skb, packet, left, false)?;
    if packet.tuple != *left {
        skb.set_marker(config.marker);
    }
    Ok(Verdict::Next)
}
