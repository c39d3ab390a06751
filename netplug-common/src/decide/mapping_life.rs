//! How long a mapping holds its port. Every packet that visits puts the end off; a flow on the short way
//! visits once in each `revisit`, so a live flow never loses its port.

use crate::decide::opening::{Moment, moment};
use crate::tuple::{TCP, UDP};

/// Where a mapping's flow stands. Times are conntrack's defaults (net/netfilter/nf_conntrack_proto_tcp.c,
/// _udp.c, _icmp.c).
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Only openings were seen.
    Opening = 0,
    /// Data may flow.
    Established = 1,
    /// A FIN or RST was seen: from here only a new opening leads back.
    Closing = 2,
}

impl Stage {
    /// The stage of its number; anything unknown is `Closing`, the shortest.
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

/// The stage after a packet of `protocol` with TCP flags byte `flags`; `before` is `None` for a new mapping.
#[inline(always)]
#[must_use]
pub const fn next(before: Option<Stage>, protocol: u8, flags: u8) -> Stage {
    if protocol != TCP {
        return Stage::Established;
    }
    match (moment(flags), before) {
        (Moment::Opening, _) => Stage::Opening,
        (Moment::Closing, _) | (Moment::Underway, Some(Stage::Closing)) => Stage::Closing,
        (Moment::Underway, _) => Stage::Established,
    }
}

/// Seconds without a visit after which the port may go to another flow.
#[inline(always)]
#[must_use]
pub const fn seconds(protocol: u8, stage: Stage) -> u32 {
    match (protocol, stage) {
        (TCP, Stage::Established) => 432_000,
        (TCP, _) => 120,
        (UDP, _) => 180,
        _ => 30,
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
        let mut stage = next(None, TCP, SYN);
        for (flags, expected) in [
            (SYN | ACK, Stage::Opening),
            (ACK, Stage::Established),
            (FIN | ACK, Stage::Closing),
            (ACK, Stage::Closing),
            (SYN, Stage::Opening),
            (RST, Stage::Closing),
        ] {
            stage = next(Some(stage), TCP, flags);
            assert_eq!(stage, expected, "{flags:#04x}");
        }
    }

    #[test]
    fn a_mapping_found_in_the_middle_of_its_flow_is_established() {
        assert_eq!(next(None, TCP, ACK), Stage::Established);
        assert_eq!(next(None, UDP, 0), Stage::Established);
    }

    #[test]
    fn expiry_holds_across_the_wrap_of_jiffies() {
        assert!(!has_expired(10, u32::MAX - 10));
        assert!(has_expired(u32::MAX - 10, 10));
        assert!(has_expired(5, 5));
        assert!(!has_expired(6, 5));
    }
}
