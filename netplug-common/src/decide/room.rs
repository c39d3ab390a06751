//! Whether the flow cache has room for one more flow.
//!
//! An LRU that takes in whatever comes is of no use once more flows are under way than it has room for: each is displaced
//! before its next packet, and every packet pays for a visit, for learning, and for displacing. So no more are taken in than the
//! cache could keep for [`KEEP`]: as many as it holds at once, and then so many a second. What is in it stays long enough
//! to be used, and a flow of many packets has as many chances. A rate of this kind is the virtual scheduling algorithm of ITU-T I.371
//! (annex A).

/// How long a flow that is taken in may count on its place, in seconds.
pub const KEEP: u64 = 20;

/// Bits of a jiffy's fraction: room for one flow may be less than a jiffy apart from the next.
const FRACTION: u32 = 24;

/// Whether all that the cache can keep is taken, at `now`, in jiffies. `taken_until` is what [`take`] returned last, at first 0.
#[inline(always)]
#[must_use]
pub const fn is_taken(taken_until: u64, now: u64, jiffies_per_second: u64) -> bool {
    taken_until > (now + KEEP * jiffies_per_second) << FRACTION
}

/// Takes room for one of `entries`; what is taken then.
#[inline(always)]
#[must_use]
pub const fn take(taken_until: u64, now: u64, jiffies_per_second: u64, entries: u32) -> u64 {
    let now = now << FRACTION;
    let keep = (KEEP * jiffies_per_second) << FRACTION;
    // Some are taken in whether there is room or not: others are not to wait for it for longer.
    let from = if taken_until <= now {
        now
    } else if taken_until > now + keep {
        now + keep
    } else {
        taken_until
    };
    match keep.checked_div(entries as u64) {
        Some(share) => from + share,
        None => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 250;

    fn take_all(taken_until: &mut u64, now: u64, entries: u32) -> u32 {
        let mut taken = 0;
        while !is_taken(*taken_until, now, HZ) {
            *taken_until = take(*taken_until, now, HZ, entries);
            taken += 1;
        }
        taken
    }

    #[test]
    fn at_once_there_is_room_for_as_many_as_it_holds() {
        for entries in [16, 4_096, 262_144, 1 << 24] {
            let taken = take_all(&mut 0, 4_294_667_296, entries);
            // One begins the last share, and shares are rounded down.
            assert!(taken > entries && taken <= entries + entries / 64 + 1, "{taken} of {entries}");
        }
    }

    #[test]
    fn then_for_so_many_a_second() {
        let mut taken_until = 0;
        take_all(&mut taken_until, 1_000, 262_144);
        let later = take_all(&mut taken_until, 1_000 + HZ, 262_144);
        assert!((13_100..13_200).contains(&later), "{later}");
        assert_eq!(take_all(&mut taken_until, 1_000 + HZ, 262_144), 0);
    }

    #[test]
    fn what_is_taken_all_the_same_keeps_others_waiting_no_longer() {
        let mut taken_until = 0;
        for _ in 0..10 * 4_096 {
            taken_until = take(taken_until, 1_000, HZ, 4_096);
        }
        assert!(is_taken(taken_until, 1_000, HZ) && !is_taken(taken_until, 1_002, HZ));
    }

    #[test]
    fn and_after_a_pause_for_all_of_them_but_no_more() {
        let mut taken_until = 0;
        take_all(&mut taken_until, 1_000, 4_096);
        let taken = take_all(&mut taken_until, 1_000 + 1_000 * HZ, 4_096);
        assert!((4_096..4_200).contains(&taken), "{taken}");
    }
}
