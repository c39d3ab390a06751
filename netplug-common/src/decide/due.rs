//! When an entry is due to ask the host again, and whether it may be followed until then.

use crate::ip::IpVersion;
use crate::maps::flow::{DIRECT, Flow};

/// When a flow learned at `now` asks the host again: after `revisit`, less up to a quarter of it by `hash`, so
/// that flows learned together do not all ask together. Never later than `revisit`: by so much are conntrack's timeouts
/// for UDP put off, so that a flow that is cached is not forgotten sooner than one that is not.
#[inline(always)]
#[must_use]
pub const fn revisit_at(now: u64, revisit: u64, hash: u32) -> u64 {
    let quarter = revisit / 4;
    // Multiply-shift: a share of the quarter, without a division.
    now + revisit - ((quarter * (hash as u64 & 0xffff)) >> 16)
}

/// Why an entry that was found is not followed, or that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The entry is good for this packet.
    Good,
    /// Of another epoch or interface, or due: a miss.
    Void,
    /// Of another epoch, or due, but made without the host; userspace's own maps can tell whether it still holds.
    Recheck,
}

/// Whether `flow` may be followed by a packet that entered by `ifindex`.
#[inline(always)]
#[must_use]
pub fn standing<V: IpVersion>(flow: &Flow<V>, ifindex: u32, epoch: u32, now: u64) -> Standing {
    if flow.entered_by != ifindex {
        Standing::Void
    } else if flow.epoch != epoch || now >= flow.revisit_at {
        if flow.flags & DIRECT != 0 { Standing::Recheck } else { Standing::Void }
    } else {
        Standing::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::V4;
    use bytemuck::Zeroable;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_flow_asks_again_within_revisit_and_not_much_sooner(
            now in 0u64..1 << 40, revisit in 4u64..1 << 30, hash: u32,
        ) {
            let at = revisit_at(now, revisit, hash);
            prop_assert!(at <= now + revisit);
            prop_assert!(at >= now + revisit - revisit / 4 - 1);
        }
    }

    fn flow() -> Flow<V4> {
        Flow { entered_by: 7, epoch: 3, revisit_at: 100, ..Flow::zeroed() }
    }

    #[test]
    fn an_entry_is_bound_to_its_interface_its_epoch_and_its_time() {
        assert_eq!(standing(&flow(), 7, 3, 99), Standing::Good);
        assert_eq!(standing(&flow(), 8, 3, 99), Standing::Void);
        assert_eq!(standing(&flow(), 7, 4, 99), Standing::Void);
        assert_eq!(standing(&flow(), 7, 3, 100), Standing::Void);
    }

    #[test]
    fn a_direct_entry_that_is_due_is_checked_again_and_not_from_another_interface() {
        let direct = Flow { flags: DIRECT, ..flow() };
        assert_eq!(standing(&direct, 7, 4, 99), Standing::Recheck);
        assert_eq!(standing(&direct, 7, 3, 100), Standing::Recheck);
        assert_eq!(standing(&direct, 8, 4, 99), Standing::Void);
    }
}
