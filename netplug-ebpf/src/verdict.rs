//! What becomes of a packet, and how TC is told.

use netplug_common::counter::Counter;

use crate::report;
use crate::skb::Skb;

/// `TC_ACT_UNSPEC`, `TCX_NEXT`: other programs, then the kernel, go on with the packet (linux/pkt_cls.h, bpf.h).
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`: dropped.
const SHOT: i32 = 2;

/// What becomes of a packet that is not dropped.
pub enum Verdict {
    /// It goes on as if the program had not run, or with what the program changed.
    Next,
    /// A redirect helper has taken it and answered so.
    Redirect(i32),
}

/// A verdict, or the counter of the reason to drop.
pub type Outcome = Result<Verdict, Counter>;

/// Tells TC, and counts what is dropped.
#[inline(always)]
pub fn finish(skb: Skb, outcome: Outcome) -> i32 {
    match outcome {
        Ok(Verdict::Next) => NEXT,
        Ok(Verdict::Redirect(code)) => code,
        Err(reason) => {
            report::count(skb, reason);
            crate::log::dropped(skb, reason);
            SHOT
        }
    }
}
