//! A packet *leaves* the host for a pod. TC egress of the pod's host end.
//!
//! 1 the host's own word to the pod: only its ND redirects are kept back, and what it sends by a HostPort's port is noted  2 with `direct`: no service
//! connection may take a live direct one's tuple  3 answers to a HostPort's calls leave as the node
//! 4 from outside: answers are not masqueraded  5 learn what the host made of the packet

use netplug_common::counter::Counter;
use netplug_common::maps::config::{Config, HOST_PORTS};

use crate::apart::Apart;
use crate::maps;
use crate::packet::{Kind, Packet};
use crate::report;
use crate::skb::Skb;
use crate::stage::{direct, guard, masquerade};
use crate::verdict::{Outcome, Verdict};

/// The program for one family; each has a stack of its own.
#[inline(never)]
pub fn run<V: Apart + guard::Rules>(skb: Skb) -> Outcome {
    if skb.received_by() == 0 {
        return match hosts::<V>(skb) {
            PASS => Ok(Verdict::Next),
            REDIRECT => Err(Counter::NeighbourRedirect),
            IN_USE => Err(Counter::TupleInUse),
            _ => Err(Counter::RewriteFailed),
        };
    }
    report::count(skb, Counter::Left);
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    let mut packet = Packet::blank();
    if !V::parse(skb, &mut packet) {
        return Ok(Verdict::Next);
    }
    direct::check_twin(&packet, config)?;
    if config.flags & HOST_PORTS != 0 {
        readdress::<V>(skb, &mut packet, config)?;
    }
    V::note_arrival(skb, &mut packet);
    V::learn(skb, &mut packet, false);
    Ok(Verdict::Next)
}

/// Has another pod's answer to a HostPort's call leave as the node, and the host hold what its own NAT sends as the node.
#[inline(never)]
fn readdress<V: Apart>(
    skb: Skb,
    packet: &mut Packet<V>,
    config: &'static Config,
) -> Result<(), Counter> {
    match packet.kind {
        Kind::Error => return V::masquerade_error(skb, packet),
        Kind::Later => return V::follow(skb, packet, false),
        _ => {}
    }
    let Some(scratch) = V::scratch() else { return Ok(()) };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let left = unsafe { &mut (*scratch).entered };
    *left = packet.tuple;
    if !masquerade::forwarded_to_pod(packet, config)? {
        V::readdress_answer(skb, packet)?;
    }
    if packet.fragment != 0 {
        V::note_fragment(skb, packet, left, false)?;
    }
    Ok(())
}

const PASS: u32 = 0;
const REDIRECT: u32 = 1;
const FAILED: u32 = 2;
const IN_USE: u32 = 3;

/// What the host itself sends by a HostPort's port is no call's answer. Out of line, and a number, as below.
#[inline(never)]
fn hold<V: Apart>(skb: Skb, config: &'static Config) -> u32 {
    if masquerade::own_to_pod::<V>(skb, config).is_err() { IN_USE } else { PASS }
}

/// What the host itself sends: its errors about calls of HostPorts quote what the pod had called. Out of line, and a number,
/// since the verifier takes the unused half of a small result for a register that was not written.
#[inline(never)]
fn hosts<V: Apart + guard::Rules>(skb: Skb) -> u32 {
    if !V::is_icmp(skb) {
        return match maps::config() {
            Some(config) if config.flags & HOST_PORTS != 0 => hold::<V>(skb, config),
            _ => PASS,
        };
    }
    if guard::check_host::<V>(skb).is_err() {
        return REDIRECT;
    }
    let mut packet = Packet::blank();
    let is_error = V::parse(skb, &mut packet) && packet.kind == Kind::Error;
    if is_error && V::translate_hosts_error(skb, &mut packet).is_err() {
        return FAILED;
    }
    PASS
}
