//! A packet *leaves* the host for the outside. TC egress of an uplink.
//!
//! 1 the host's own: done, but for identifiers of its echoes and ports of its own NAT  2 redirected by us: done
//! 3 from a pod, to where pods are not known: masquerade, errors by what they quote  4 learn what the host, and we,
//! made of the packet

use netplug_common::counter::Counter;

use crate::apart::Apart;
use crate::maps;
use crate::packet::Kind;
use crate::report;
use crate::skb::Skb;
use crate::stage::masquerade;
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
    own::<V>(skb);
    Ok(Verdict::Next)
}

#[inline(never)]
fn own<V: Apart>(skb: Skb) {
    masquerade::own::<V>(skb);
}

#[inline(never)]
fn forwarded<V: Apart>(skb: Skb) -> Outcome {
    let Some(config) = maps::config() else { return Ok(Verdict::Next) };
    if skb.marker() == config.marker {
        skb.set_marker(0);
        return Ok(Verdict::Next);
    }
    report::count(skb, Counter::Left);
    let Some(mut packet) = V::any(skb) else { return Ok(Verdict::Next) };
    if packet.kind == Kind::Error {
        V::masquerade_error(skb, &mut packet)?;
        return Ok(Verdict::Next);
    }
    V::masquerade(skb, &mut packet)?;
    V::learn(skb, &mut packet, true);
    Ok(Verdict::Next)
}
