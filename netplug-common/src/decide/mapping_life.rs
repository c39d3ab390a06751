//! How long a mapping holds its port. Every packet that visits puts the end off; a flow on the short way
//! visits once in each `revisit`, so a live flow never loses its port.

use bytemuck::{Pod, Zeroable};

use crate::decide::opening::{Moment, moment};
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
    /// UDP that nobody has answered.
    pub udp: u32,
    /// UDP both ways.
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
            (TCP, Stage::Opening) => self.tcp_opening,
            (TCP, Stage::Closing) => self.tcp_closing,
            (UDP, Stage::Established) => self.udp_stream,
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
    /// TCP: only openings were seen. Others: nobody has answered.
    Opening = 0,
    /// Data may flow.
    Established = 1,
    /// A FIN or RST was seen: from here only a new opening leads back.
    Closing = 2,
}

impl Stage {
    /// The stage of its number; anything unknown is `Closing`.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Established,
            _ => Self::Closing,
        }
    }
}

/// The stage after a packet of `protocol` with TCP flags byte `flags` (SCTP's: `opening::sctp_flags`), which is an answer or
/// not; `before` is `None` for a new mapping.
#[inline(always)]
#[must_use]
pub const fn next(before: Option<Stage>, protocol: u8, flags: u8, is_answer: bool) -> Stage {
    if protocol != TCP && protocol != SCTP {
        return match before {
            Some(Stage::Established) => Stage::Established,
            _ if is_answer => Stage::Established,
            _ => Stage::Opening,
        };
    }
    match (moment(flags), before) {
        (Moment::Opening, _) => Stage::Opening,
        (Moment::Closing, _) | (Moment::Underway, Some(Stage::Closing)) => Stage::Closing,
        (Moment::Underway, _) => Stage::Established,
    }
}

/// Whether a mapping may give way to another flow where the map is full, `left` seconds before its end: not while data may
/// flow, and not before an answer had a second's time to come.
#[inline(always)]
#[must_use]
pub const fn may_give_way(lifetimes: &Lifetimes, protocol: u8, stage: Stage, left: u32) -> bool {
    match stage {
        Stage::Established => false,
        Stage::Closing => true,
        Stage::Opening => left + 1 < lifetimes.seconds(protocol, stage),
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

    #[test]
    fn a_connection_goes_from_opening_to_established_to_closing_and_opens_again() {
        let mut stage = next(None, TCP, SYN, false);
        for (flags, expected) in [
            (SYN | ACK, Stage::Opening),
            (ACK, Stage::Established),
            (FIN | ACK, Stage::Closing),
            (ACK, Stage::Closing),
            (SYN, Stage::Opening),
            (RST, Stage::Closing),
        ] {
            stage = next(Some(stage), TCP, flags, false);
            assert_eq!(stage, expected, "{flags:#04x}");
        }
    }

    #[test]
    fn a_connection_found_in_the_middle_is_established() {
        assert_eq!(next(None, TCP, ACK, false), Stage::Established);
    }

    #[test]
    fn datagrams_are_established_by_an_answer_and_for_good() {
        let mut stage = next(None, UDP, 0, false);
        for (is_answer, expected) in
            [(false, Stage::Opening), (true, Stage::Established), (false, Stage::Established)]
        {
            stage = next(Some(stage), UDP, 0, is_answer);
            assert_eq!(stage, expected);
        }
    }

    #[test]
    fn each_state_has_conntracks_time() {
        let seconds = |protocol, stage| Lifetimes::DEFAULT.seconds(protocol, stage);
        assert_eq!(seconds(TCP, Stage::Established), 432_000);
        assert_eq!((seconds(UDP, Stage::Opening), seconds(UDP, Stage::Established)), (30, 120));
        assert_eq!(seconds(1, Stage::Established), 30);
        assert_eq!((seconds(SCTP, Stage::Opening), seconds(SCTP, Stage::Established)), (10, 210));
    }

    #[test]
    fn what_carries_data_never_gives_way_and_the_rest_not_at_once() {
        let may = |stage, left| may_give_way(&Lifetimes::DEFAULT, TCP, stage, left);
        assert!(!may(Stage::Established, 0));
        assert!(may(Stage::Closing, 120));
        assert!(!may(Stage::Opening, 120) && !may(Stage::Opening, 119));
        assert!(may(Stage::Opening, 118));
    }

    #[test]
    fn expiry_holds_across_the_wrap_of_jiffies() {
        assert!(!has_expired(10, u32::MAX - 10));
        assert!(has_expired(u32::MAX - 10, 10));
        assert!(has_expired(5, 5));
        assert!(!has_expired(6, 5));
    }
}
