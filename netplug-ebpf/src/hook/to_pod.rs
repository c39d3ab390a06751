//! A packet *leaves* the host for a pod. TC egress of the pod's host end.
//!
//! 1 the host's own word to the pod: only its ND redirects are kept back  2 with `direct`: no service
//! connection may take a live direct one's tuple  3 from outside: answers are not masqueraded
//! 4 learn what the host made of the packet

use netplug_common::counter::Counter;

use crate::apart::Apart;
use crate::maps;
use crate::report;
use crate::skb::Skb;
use crate::stage::{direct, guard};
use crate::verdict::{Outcome, Verdict};

/// The program for one family; each has a stack of its own.
#[inline(never)]
pub fn run<V: Apart + guard::Rules>(skb: Skb) -> Outcome {
    if skb.received_by() == 0 {
        guard::check_host::<V>(skb)?;
        return Ok(Verdict::Next);
    }
    report::count(skb, Counter::Left);
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    let Some(mut packet) = V::any(skb) else { return Ok(Verdict::Next) };
    direct::check_twin(&packet, config)?;
    V::note_arrival(skb, &packet);
    V::learn(skb, &mut packet, false);
    Ok(Verdict::Next)
}
