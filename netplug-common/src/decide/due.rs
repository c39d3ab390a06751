//! When an entry is due to ask the host again, and whether it may be followed until then.

use crate::ip::IpVersion;
use crate::maps::flow::{ANSWERS, DIRECT, Flow, NEW, TOLD};
use crate::tuple::Tuple;

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

/// After what time a UDP flow asks, given the setting. Answers ask sooner, since they [wait](wait) for what they answer, and are to
/// ask no later for that.
///
/// `is_new`: conntrack may have begun with the flow just now. It takes one for a stream, which it keeps for longer
/// (`nf_conntrack_udp_timeout_stream`), once it sees a packet more than two seconds after the first
/// (`nf_conntrack_udp_packet`, net/netfilter/nf_conntrack_proto_udp.c, Linux 6.12).
#[inline(always)]
#[must_use]
pub const fn revisit_of_datagrams(
    revisit: u64,
    jiffies_per_second: u64,
    is_answer: bool,
    is_new: bool,
) -> u64 {
    let revisit = if is_answer { revisit - revisit / 4 } else { revisit };
    // Two seconds also when it is less a quarter.
    let first = jiffies_per_second * 11 / 4;
    if is_new && first < revisit { first } else { revisit }
}

/// Why an entry that was found is not followed, or that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The entry is good for this packet.
    Good,
    /// Of another epoch or interface, or due: a miss.
    Void,
    /// Of another interface or epoch, or due, but made without the host; userspace's own maps can tell whether it still holds.
    Recheck,
    /// Due, but [what it answers](wait) is to ask first.
    Waits,
}

/// Whether `flow` may be followed by a packet that entered by `ifindex`.
#[inline(always)]
#[must_use]
pub fn standing<V: IpVersion>(flow: &Flow<V>, ifindex: u32, epoch: u32, now: u64) -> Standing {
    if flow.entered_by != ifindex {
        if flow.flags & DIRECT != 0 { Standing::Recheck } else { Standing::Void }
    } else if flow.epoch != epoch || now >= flow.revisit_at {
        match flow.flags & (DIRECT | ANSWERS) {
            0 => Standing::Void,
            ANSWERS if flow.epoch == epoch => Standing::Waits,
            ANSWERS => Standing::Void,
            _ => Standing::Recheck,
        }
    } else {
        Standing::Good
    }
}

/// What becomes of an answer whose entry is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It asks the host.
    Ask,
    /// It follows its entry still.
    Follow,
    /// The same, and what it answers is to ask: its entry becomes due, and that of the answer [`TOLD`].
    Tell,
}

/// Whether an answer of the tuple `entered`, whose entry is due, asks the host, given the entry of what it answers. A host that has
/// forgotten the flow, as kube-proxy has it forget datagrams of a service, would take an answer for a question of its own, and let
/// it pass untranslated; a question it gives what it needs to know the answers by.
///
/// No answer waits for longer than a quarter of `revisit`, and for its first ask than half a second: where there are only answers, the
/// host is to see that they go on.
#[inline(always)]
#[must_use]
pub fn wait<V: IpVersion>(
    entered: &Tuple<V>,
    answer: &Flow<V>,
    question: &Flow<V>,
    now: u64,
    revisit: u64,
    jiffies_per_second: u64,
) -> Wait {
    let half_a_second = jiffies_per_second / 2;
    let is_brief = answer.flags & NEW != 0 && half_a_second < revisit / 4;
    let longest = if is_brief { half_a_second } else { revisit / 4 };
    let waits_no_more = now.wrapping_sub(answer.revisit_at) >= longest;
    if waits_no_more || question.left != entered.reversed() || question.epoch != answer.epoch {
        return Wait::Ask;
    }
    match (question.revisit_at > now, answer.flags & TOLD != 0) {
        // It has asked since.
        (true, true) => Wait::Ask,
        (true, false) => Wait::Tell,
        (false, _) => Wait::Follow,
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
    fn a_direct_entry_that_is_due_or_of_another_interface_is_checked_again() {
        let direct = Flow { flags: DIRECT, ..flow() };
        assert_eq!(standing(&direct, 7, 4, 99), Standing::Recheck);
        assert_eq!(standing(&direct, 7, 3, 100), Standing::Recheck);
        assert_eq!(standing(&direct, 8, 3, 99), Standing::Recheck);
    }

    fn tuple(source: u8, destination: u8) -> Tuple<V4> {
        let address = |last| crate::ip::Ipv4 { octets: [10, 0, 0, last] };
        Tuple { source: address(source), destination: address(destination), ..Tuple::zeroed() }
    }

    const REVISIT: u64 = 40;
    /// Of service 9, behind which 2 is, and which 1 calls.
    fn question() -> Flow<V4> {
        Flow { left: tuple(1, 2), ..flow() }
    }

    fn answer() -> Flow<V4> {
        Flow { left: tuple(9, 1), flags: ANSWERS, ..flow() }
    }

    fn wait_for(answer: &Flow<V4>, question: &Flow<V4>, now: u64) -> Wait {
        wait(&tuple(2, 1), answer, question, now, REVISIT, 10)
    }

    #[test]
    fn an_answer_that_is_due_waits_within_its_epoch() {
        assert_eq!(standing(&answer(), 7, 3, 99), Standing::Good);
        assert_eq!(standing(&answer(), 7, 3, 100), Standing::Waits);
        assert_eq!(standing(&answer(), 7, 4, 99), Standing::Void);
        assert_eq!(standing(&answer(), 8, 3, 100), Standing::Void);
    }

    #[test]
    fn a_question_is_told_to_ask_and_its_answer_asks_behind_it() {
        let cached = Flow { revisit_at: 115, ..question() };
        let told = Flow { flags: ANSWERS | TOLD, ..answer() };
        assert_eq!(wait_for(&answer(), &cached, 104), Wait::Tell);
        assert_eq!(wait_for(&told, &Flow { revisit_at: 104, ..cached }, 105), Wait::Follow);
        assert_eq!(wait_for(&told, &Flow { revisit_at: 144, ..cached }, 105), Wait::Ask);
    }

    #[test]
    fn an_answer_does_not_wait_for_a_question_that_is_not_its_own_nor_for_ever() {
        let cached = Flow { revisit_at: 115, ..question() };
        assert_eq!(wait_for(&answer(), &Flow { left: tuple(1, 3), ..cached }, 104), Wait::Ask);
        assert_eq!(wait_for(&answer(), &Flow { epoch: 2, ..cached }, 104), Wait::Ask);
        assert_eq!(wait_for(&answer(), &cached, 109), Wait::Tell);
        assert_eq!(wait_for(&answer(), &cached, 110), Wait::Ask);
        let new = Flow { flags: ANSWERS | NEW, ..answer() };
        assert_eq!(wait_for(&new, &cached, 104), Wait::Tell);
        assert_eq!(wait_for(&new, &cached, 105), Wait::Ask);
    }

    proptest! {
        #[test]
        fn datagrams_ask_within_revisit_answers_leave_room_to_wait_and_new_ones_soon(
            revisit in 8u64..1 << 30, hash: u32, is_answer: bool, is_new: bool,
        ) {
            const SECOND: u64 = 250;
            let asks = revisit_of_datagrams(revisit, SECOND, is_answer, is_new);
            let at = revisit_at(0, asks, hash);
            let wait = if is_answer { revisit / 4 } else { 0 };
            prop_assert!(at + wait <= revisit);
            if is_new {
                prop_assert!(at < 3 * SECOND);
                prop_assert!(at > 2 * SECOND || asks < 11 * SECOND / 4);
            }
        }
    }
}
