//! What the programs tell: counters. One place counts a packet's way, `main.rs` counts its drop.

use netplug_common::counter::Counter;

use crate::maps;
use crate::skb::Skb;

/// Counts `number` of something else than packets.
#[inline(always)]
pub fn count_many(counter: Counter, number: u64) {
    if let Some(count) = maps::counter(counter as u32) {
        // SAFETY: as below.
        unsafe { (*count).packets += number };
    }
}

/// Counts `skb` under `counter`.
#[inline(always)]
pub fn count(skb: Skb, counter: Counter) {
    if let Some(count) = maps::counter(counter as u32) {
        // SAFETY: it is this CPU's own, and programs on one CPU do not interrupt one another at TC.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += u64::from(skb.length());
        }
    }
}
