//! How often to try to learn a flow that never comes out: one that ends in the host, or that the host drops.

/// Packets in a row that are noted before the flow is left alone until its next run.
pub const TRIES: u32 = 8;

/// Whether one more packet of a flow is noted, whose run began at `noted_at` and has `tries` behind it; and if
/// so, whether as the first of a new run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// Note it, as one more of the run.
    Again,
    /// Note it, as the first of a new run.
    Anew,
    /// Leave the flow alone.
    No,
}

/// Decides as [`Note`] says. A run lasts `revisit` jiffies.
#[inline(always)]
#[must_use]
pub const fn note(noted_at: u64, tries: u32, now: u64, revisit: u64) -> Note {
    if now.wrapping_sub(noted_at) >= revisit {
        Note::Anew
    } else if tries < TRIES {
        Note::Again
    } else {
        Note::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_never_comes_out_is_noted_eight_times_a_revisit() {
        let (mut noted_at, mut tries, mut noted) = (0, 0, 0);
        for now in 1000..3000 {
            match note(noted_at, tries, now, 1000) {
                Note::Anew => (noted_at, tries, noted) = (now, 1, noted + 1),
                Note::Again => (tries, noted) = (tries + 1, noted + 1),
                Note::No => {}
            }
        }
        assert_eq!(noted, 2 * TRIES);
    }
}
