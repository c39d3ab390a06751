//! How long a mapping holds its port. Every packet that visits puts the end off; a flow on the short way
//! visits once in each `revisit`, so a live flow never loses its port.

use bytemuck::{Pod, Zeroable};

use crate::decide::opening::{Moment, RST, accepts, moment};
use crate::tuple::{SCTP, TCP, UDP};

/// Seconds without a packet after which the port may go to another flow. The defaults are conntrack's
/// (net/netfilter/nf_conntrack_proto_tcp.c, _udp.c, _icmp.c, _sctp.c, Linux 6.12).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Lifetimes {
    /// TCP of which only openings were seen.
    pub tcp_opening: u32,
    /// TCP under way.
    pub tcp_established: u32,
    /// TCP after a FIN or RST, TIME_WAIT included.
    pub tcp_closing: u32,
    /// UDP that nobody has answered, or that is over within two seconds.
    pub udp: u32,
    /// UDP both ways, for longer.
    pub udp_stream: u32,
    /// ICMP echo.
    pub icmp: u32,
    /// SCTP under way. What opens or closes holds its port for ten seconds.
    pub sctp_established: u32,
    /// Always zero.
    pub _pad: u32,
}

impl Lifetimes {
    /// conntrack's.
    pub const DEFAULT: Self = Self {
        tcp_opening: 120,
        tcp_established: 432_000,
        tcp_closing: 120,
        udp: 30,
        udp_stream: 120,
        icmp: 30,
        sctp_established: 210,
        _pad: 0,
    };

    /// Seconds for a flow of `protocol` at `stage`.
    #[inline(always)]
    #[must_use]
    pub const fn seconds(&self, protocol: u8, stage: Stage) -> u32 {
        match (protocol, stage) {
            (TCP, Stage::Established) => self.tcp_established,
            (TCP, Stage::Opening | Stage::Accepted) => self.tcp_opening,
            (TCP, _) => self.tcp_closing,
            (UDP, Stage::Established) => self.udp_stream,
            // Its end is not put off: it is to see whether it goes on.
            (UDP, Stage::Answered) if self.udp <= STREAM_AFTER => STREAM_AFTER + 1,
            (UDP, _) => self.udp,
            (SCTP, Stage::Established) => self.sctp_established,
            (SCTP, _) => 10,
            _ => self.icmp,
        }
    }
}

/// Where a mapping's flow stands.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP: only openings were seen, none of them accepted. Others: nobody has answered.
    Opening = 0,
    /// Data may flow.
    Established = 1,
    /// The caller has sent a FIN: the other side may still send data.
    CallerClosed = 2,
    /// The other side has, and the caller may send.
    CalledClosed = 3,
    /// Both have. Only a new opening leads back.
    Closed = 4,
    /// One sent a RST. It may not have been heeded (RFC 5961 §3): where both sides go on, so does the connection.
    Reset = 5,
    /// After a RST the caller went on, or nobody else was heard at all.
    CallerGoesOn = 6,
    /// After a RST the other side went on, or nobody else was heard at all.
    CalledGoesOn = 7,
    /// UDP: somebody has answered. Whether it is more than a question and its answer is to be seen.
    Answered = 8,
    /// TCP: the other side has accepted.
    Accepted = 9,
}

impl Stage {
    /// The stage of its number; anything unknown is `Closed`.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Established,
            2 => Self::CallerClosed,
            3 => Self::CalledClosed,
            5 => Self::Reset,
            6 => Self::CallerGoesOn,
            7 => Self::CalledGoesOn,
            8 => Self::Answered,
            9 => Self::Accepted,
            _ => Self::Closed,
        }
    }

    /// Whether nothing more is to come of a flow, as far as was seen.
    #[inline(always)]
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Closed | Self::Reset)
    }

    /// Whether a flow carries no data yet, or any more.
    #[inline(always)]
    #[must_use]
    pub const fn is_idle(self) -> bool {
        matches!(self, Self::Opening | Self::Accepted) || self.has_ended()
    }
}

/// Seconds after which a UDP flow that goes on is a stream: conntrack's (`nf_conntrack_udp_packet`,
/// net/netfilter/nf_conntrack_proto_udp.c, Linux 6.12), which counts from the first packet; here it is the first answer.
pub const STREAM_AFTER: u32 = 2;

/// The stage after a packet of `protocol` with TCP flags byte `flags` (SCTP's: `opening::sctp_flags`), which is an answer to who
/// called or not; `before` is `None` for a new mapping. `goes_on`: it is [`Stage::Answered`] for [`STREAM_AFTER`].
#[inline(always)]
#[must_use]
pub const fn next(
    before: Option<Stage>,
    protocol: u8,
    flags: u8,
    is_answer: bool,
    goes_on: bool,
) -> Stage {
    if protocol != TCP && protocol != SCTP {
        return match before {
            Some(Stage::Established) => Stage::Established,
            Some(Stage::Answered) if goes_on => Stage::Established,
            Some(Stage::Answered) => Stage::Answered,
            _ if !is_answer => Stage::Opening,
            _ if protocol == UDP => Stage::Answered,
            _ => Stage::Established,
        };
    }
    match (moment(flags), before) {
        // A call or its acceptance, repeated or come late, or a claim of somebody who knows no better: conntrack heeds none of
        // them while a connection lives (sIG of `tcp_conntracks`). Of one that closes the caller may have the end, and call anew.
        (Moment::Opening, Some(Stage::Established)) => Stage::Established,
        (Moment::Opening, Some(stage @ (Stage::CallerClosed | Stage::CalledClosed)))
            if is_answer =>
        {
            stage
        }
        (Moment::Opening, _) if is_answer && accepts(flags) => Stage::Accepted,
        (Moment::Opening, _) => Stage::Opening,
        (Moment::Closing, _) if flags & RST != 0 => Stage::Reset,
        (Moment::Closing, Some(Stage::Closed)) => Stage::Closed,
        (Moment::Closing, Some(Stage::CallerClosed)) if is_answer => Stage::Closed,
        (Moment::Closing, Some(Stage::CalledClosed)) if !is_answer => Stage::Closed,
        (Moment::Closing, _) if is_answer => Stage::CalledClosed,
        (Moment::Closing, _) => Stage::CallerClosed,
        (
            Moment::Underway,
            Some(stage @ (Stage::CallerClosed | Stage::CalledClosed | Stage::Closed)),
        ) => stage,
        (Moment::Underway, Some(Stage::CallerGoesOn)) if !is_answer => Stage::CallerGoesOn,
        (Moment::Underway, Some(Stage::CalledGoesOn)) if is_answer => Stage::CalledGoesOn,
        // One side alone is no connection yet: conntrack's "mid-connection pickup" (`nf_conntrack_tcp_packet`,
        // net/netfilter/nf_conntrack_proto_tcp.c, Linux 6.12).
        (Moment::Underway, None | Some(Stage::Reset)) if is_answer => Stage::CalledGoesOn,
        (Moment::Underway, None | Some(Stage::Reset)) => Stage::CallerGoesOn,
        (Moment::Underway, Some(Stage::Opening)) if !is_answer => Stage::CallerGoesOn,
        // It does not accept: who is called may hold the port's last connection for alive, and then the caller resets that (sIG).
        // Or it was the caller who accepted, where both called at once, or where the host answers a call.
        (Moment::Underway, Some(Stage::Opening)) => Stage::CalledGoesOn,
        (Moment::Underway, _) => Stage::Established,
    }
}

/// Whether a mapping may give way to another flow where the map is full, `left` seconds before its end: not while data may
/// flow, and not before an answer had a second's time to come, or a flow of datagrams to show that it goes on.
#[inline(always)]
#[must_use]
pub const fn may_give_way(lifetimes: &Lifetimes, protocol: u8, stage: Stage, left: u32) -> bool {
    match stage {
        Stage::Established | Stage::CallerClosed | Stage::CalledClosed => false,
        Stage::Closed | Stage::Reset => true,
        Stage::Opening | Stage::Accepted | Stage::CallerGoesOn | Stage::CalledGoesOn => {
            left + 1 < lifetimes.seconds(protocol, stage)
        }
        // The cache asks after three seconds, and four where only answers come.
        Stage::Answered => left + STREAM_AFTER + 2 < lifetimes.seconds(protocol, stage),
    }
}

/// Whether `expires_at` has passed at `now`; both are the low 32 bits of jiffies, so the order is circular.
/// Right for spans below 2^31 jiffies: 24 days at 1,000 Hz.
#[inline(always)]
#[must_use]
pub const fn has_expired(expires_at: u32, now: u32) -> bool {
    now.wrapping_sub(expires_at) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::opening::{ACK, FIN, RST, SYN};

    const CALL: bool = false;
    const ANSWER: bool = true;

    #[track_caller]
    fn goes(steps: &[(u8, bool, Stage)]) {
        let mut stage = None;
        for (flags, is_answer, expected) in steps {
            stage = Some(next(stage, TCP, *flags, *is_answer, true));
            assert_eq!(stage, Some(*expected), "{flags:#04x}");
        }
    }

    #[test]
    fn a_connection_opens_closes_side_by_side_and_opens_again() {
        goes(&[
            (SYN, CALL, Stage::Opening),
            (SYN | ACK, ANSWER, Stage::Accepted),
            (ACK, CALL, Stage::Established),
            (FIN | ACK, CALL, Stage::CallerClosed),
            (FIN | ACK, CALL, Stage::CallerClosed),
            (ACK, ANSWER, Stage::CallerClosed),
            (FIN | ACK, ANSWER, Stage::Closed),
            (ACK, CALL, Stage::Closed),
            (SYN, CALL, Stage::Opening),
            (RST, ANSWER, Stage::Reset),
        ]);
    }

    #[test]
    fn the_other_side_may_close_first() {
        goes(&[
            (ACK, CALL, Stage::CallerGoesOn),
            (ACK, ANSWER, Stage::Established),
            (FIN | ACK, ANSWER, Stage::CalledClosed),
            (ACK, CALL, Stage::CalledClosed),
            (FIN | ACK, CALL, Stage::Closed),
        ]);
    }

    #[test]
    fn a_reset_ends_a_connection_unless_both_sides_go_on() {
        goes(&[
            (ACK, CALL, Stage::CallerGoesOn),
            (ACK, ANSWER, Stage::Established),
            (RST, ANSWER, Stage::Reset),
            // What was under way when the caller was told.
            (ACK, CALL, Stage::CallerGoesOn),
            (ACK, CALL, Stage::CallerGoesOn),
            (RST, ANSWER, Stage::Reset),
            (ACK, ANSWER, Stage::CalledGoesOn),
            (ACK, ANSWER, Stage::CalledGoesOn),
            (ACK, CALL, Stage::Established),
            (RST, CALL, Stage::Reset),
            (SYN, CALL, Stage::Opening),
        ]);
    }

    #[test]
    fn each_stage_has_its_number() {
        for number in 0..=9 {
            assert_eq!(Stage::of(number) as u8, number);
        }
        assert_eq!(Stage::of(10), Stage::Closed);
        assert!(Stage::Reset.has_ended() && !Stage::CallerGoesOn.has_ended());
    }

    #[test]
    fn a_connection_found_in_the_middle_is_one_once_both_sides_were_heard() {
        goes(&[(ACK, ANSWER, Stage::CalledGoesOn), (ACK, CALL, Stage::Established)]);
        // Nobody has accepted.
        goes(&[
            (SYN, CALL, Stage::Opening),
            (ACK, CALL, Stage::CallerGoesOn),
            (ACK, CALL, Stage::CallerGoesOn),
            (ACK, ANSWER, Stage::Established),
        ]);
        goes(&[
            (SYN, CALL, Stage::Opening),
            (ACK, ANSWER, Stage::CalledGoesOn),
            (ACK, CALL, Stage::Established),
        ]);
    }

    #[test]
    fn nobody_opens_a_connection_anew_that_lives() {
        goes(&[
            (SYN, CALL, Stage::Opening),
            (SYN | ACK, ANSWER, Stage::Accepted),
            (SYN | ACK, ANSWER, Stage::Accepted),
            (ACK, CALL, Stage::Established),
            (SYN | ACK, ANSWER, Stage::Established),
            (SYN, ANSWER, Stage::Established),
            (SYN, CALL, Stage::Established),
            (FIN | ACK, CALL, Stage::CallerClosed),
            (SYN | ACK, ANSWER, Stage::CallerClosed),
        ]);
        // The called one's end was never heard.
        goes(&[
            (ACK, CALL, Stage::CallerGoesOn),
            (ACK, ANSWER, Stage::Established),
            (FIN | ACK, CALL, Stage::CallerClosed),
            (SYN, CALL, Stage::Opening),
            (SYN | ACK, ANSWER, Stage::Accepted),
            (ACK, CALL, Stage::Established),
        ]);
    }

    #[test]
    fn either_side_may_accept() {
        // What leaves is taken for a call where the host answers.
        goes(&[
            (SYN | ACK, CALL, Stage::Opening),
            (ACK, ANSWER, Stage::CalledGoesOn),
            (ACK, CALL, Stage::Established),
        ]);
        // Both call at once (RFC 9293 §3.5).
        goes(&[
            (SYN, CALL, Stage::Opening),
            (SYN, ANSWER, Stage::Opening),
            (SYN | ACK, CALL, Stage::Opening),
            (ACK, ANSWER, Stage::CalledGoesOn),
            (ACK, CALL, Stage::Established),
        ]);
    }

    /// RFC 5961 §4: what it gets is a challenge, which it answers by a reset, and then calls again.
    #[test]
    fn who_calls_anew_while_the_other_side_has_not_heard_the_end_has_not_been_accepted() {
        goes(&[
            (ACK, CALL, Stage::CallerGoesOn),
            (ACK, ANSWER, Stage::Established),
            (FIN | ACK, CALL, Stage::CallerClosed),
            (SYN, CALL, Stage::Opening),
            (ACK, ANSWER, Stage::CalledGoesOn),
            (RST, CALL, Stage::Reset),
            (SYN, CALL, Stage::Opening),
            (SYN | ACK, ANSWER, Stage::Accepted),
        ]);
    }

    #[test]
    fn datagrams_are_a_stream_once_they_go_on_after_an_answer_and_for_good() {
        const NOW: bool = false;
        const LATER: bool = true;
        let mut stage = None;
        for (is_answer, goes_on, expected) in [
            (CALL, LATER, Stage::Opening),
            (CALL, LATER, Stage::Opening),
            (ANSWER, LATER, Stage::Answered),
            (CALL, NOW, Stage::Answered),
            (ANSWER, NOW, Stage::Answered),
            (CALL, LATER, Stage::Established),
            (CALL, NOW, Stage::Established),
        ] {
            stage = Some(next(stage, UDP, 0, is_answer, goes_on));
            assert_eq!(stage, Some(expected));
        }
    }

    #[test]
    fn an_echo_is_established_by_its_answer() {
        let asked = next(None, 1, 0, CALL, false);
        assert_eq!(next(Some(asked), 1, 0, ANSWER, false), Stage::Established);
    }

    #[test]
    fn each_state_has_conntracks_time() {
        let seconds = |protocol, stage| Lifetimes::DEFAULT.seconds(protocol, stage);
        assert_eq!(seconds(TCP, Stage::Established), 432_000);
        assert_eq!((seconds(UDP, Stage::Opening), seconds(UDP, Stage::Established)), (30, 120));
        assert_eq!(seconds(UDP, Stage::Answered), 30);
        let hasty = Lifetimes { udp: 1, ..Lifetimes::DEFAULT };
        assert_eq!(hasty.seconds(UDP, Stage::Answered), 3);
        assert_eq!(seconds(1, Stage::Established), 30);
        assert_eq!((seconds(SCTP, Stage::Opening), seconds(SCTP, Stage::Established)), (10, 210));
    }

    #[test]
    fn each_setting_is_its_states() {
        let set = Lifetimes {
            tcp_opening: 1,
            tcp_established: 2,
            tcp_closing: 3,
            udp: 4,
            udp_stream: 5,
            icmp: 6,
            sctp_established: 7,
            _pad: 0,
        };
        let of = |protocol, stages: &[Stage]| {
            stages.iter().map(|stage| set.seconds(protocol, *stage)).collect::<Vec<_>>()
        };
        assert_eq!(of(TCP, &[Stage::Opening, Stage::Established]), [1, 2]);
        let ends = [Stage::CallerClosed, Stage::CalledClosed, Stage::Closed, Stage::Reset];
        assert_eq!(of(TCP, &ends), [3; 4]);
        assert_eq!(of(TCP, &[Stage::CallerGoesOn, Stage::CalledGoesOn]), [3; 2]);
        assert_eq!(of(UDP, &[Stage::Opening, Stage::Answered, Stage::Established]), [4, 4, 5]);
        assert_eq!(of(1, &[Stage::Opening, Stage::Established]), [6; 2]);
        assert_eq!(of(SCTP, &[Stage::Opening, Stage::Established, Stage::Closed]), [10, 7, 10]);
    }

    #[test]
    fn what_carries_data_never_gives_way_and_the_rest_not_at_once() {
        let may = |stage, left| may_give_way(&Lifetimes::DEFAULT, TCP, stage, left);
        for stage in [Stage::Established, Stage::CallerClosed, Stage::CalledClosed] {
            assert!(!may(stage, 0));
        }
        assert!(may(Stage::Closed, 120) && may(Stage::Reset, 120));
        assert!(!may(Stage::Opening, 120) && !may(Stage::Opening, 119));
        assert!(may(Stage::Opening, 118));
        let may = |left| may_give_way(&Lifetimes::DEFAULT, UDP, Stage::Answered, left);
        assert!(!may(26) && may(25));
    }

    #[test]
    fn expiry_holds_across_the_wrap_of_jiffies() {
        assert!(!has_expired(10, u32::MAX - 10));
        assert!(has_expired(u32::MAX - 10, 10));
        assert!(has_expired(5, 5));
        assert!(!has_expired(6, 5));
    }
}
