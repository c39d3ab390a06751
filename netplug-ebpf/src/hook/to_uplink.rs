//! A packet *leaves* the host for the outside. TC egress of an uplink.
//!
//! 1 redirected by us, or the host's own: done  2 from a pod, to where pods are not known: masquerade
//! 3 learn what the host, and we, made of the packet

use netplug_common::counter::Counter;

use crate::apart::Apart;
use crate::maps;
use crate::report;
use crate::skb::Skb;
use crate::verdict::{Outcome, Verdict};

/// The program for one family; each has a stack of its own.
#[inline(never)]
pub fn run<V: Apart>(skb: Skb) -> Outcome {
    if skb.received_by() == 0 {
        return Ok(Verdict::Next);
    }
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    if skb.marker() == config.marker {
        skb.set_marker(0);
        return Ok(Verdict::Next);
    }
    report::count(skb, Counter::Left);
    let Some(mut packet) = V::any(skb) else { return Ok(Verdict::Next) };
    V::masquerade(skb, &mut packet)?;
    V::learn(skb, &mut packet, true);
    Ok(Verdict::Next)
}
