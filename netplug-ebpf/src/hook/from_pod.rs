//! A pod speaks. TC ingress of its host end: the packet *enters*.
//!
//! Hit:  1 the host has decided this flow already: follow it
//! Miss: 2 is the source its own  3 may the host be spared even now (`direct`)  4 remember it, to learn from it
//!       5 bring it before the host, past the bridge

use netplug_common::maps::config::STEERING_ALWAYS;

use crate::hook::HEADERS;
use crate::maps;
use crate::packet::Header;
use crate::skb::Skb;
use crate::stage::{direct, flow_cache, guard, steer, visit};
use crate::verdict::{Outcome, Verdict};

/// The program for one family. Hit and miss are functions of their own: a program's calls share 512 bytes of stack,
/// and each of the two needs most of it.
#[inline(always)]
pub fn run<V: Header + guard::Rules>(skb: Skb) -> Outcome {
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
fn miss<V: Header + guard::Rules>(skb: Skb) -> Outcome {
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    let Some(port) = maps::port(skb.ifindex()) else { return Ok(Verdict::Next) };
    let Some(packet) = V::any(skb) else { return Ok(Verdict::Next) };
    guard::check_tag(skb, port, true)?;
    guard::check(skb, &packet, port)?;
    if skb.is_tagged() {
        // Another VLAN's, for the bridge to part.
        return Ok(Verdict::Next);
    }
    if direct::open(skb, &packet, port, config).is_some()
        && let Some(outcome) = flow_cache::follow(skb, &packet, config)
    {
        return outcome;
    }
    visit::remember(skb, &packet.tuple, &packet, config);
    steer::to_host(skb, &packet, port)
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
