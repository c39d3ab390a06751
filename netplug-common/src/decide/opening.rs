//! Which packets open or close a connection. They always visit, so that the host's conntrack sees each
//! connection begin and end.

/// TCP's FIN (RFC 9293 §3.1), as a bit of the flags byte.
pub const FIN: u8 = 0x01;
/// TCP's SYN.
pub const SYN: u8 = 0x02;
/// TCP's RST.
pub const RST: u8 = 0x04;
/// TCP's ACK.
pub const ACK: u8 = 0x10;

/// Where in a connection's life a TCP segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// SYN or SYN-ACK.
    Opening,
    /// FIN or RST.
    Closing,
    /// All others.
    Underway,
}

/// The moment that a TCP segment's flags byte tells. An RST closes whatever else it claims.
#[inline(always)]
#[must_use]
pub const fn moment(flags: u8) -> Moment {
    if flags & (SYN | FIN | RST) == 0 {
        Moment::Underway
    } else if flags & (FIN | RST) != 0 {
        Moment::Closing
    } else {
        Moment::Opening
    }
}

/// Whether a packet of that moment visits the host though its flow is cached: conntrack is to see connections begin and end.
#[inline(always)]
#[must_use]
pub const fn visits(moment: Moment) -> bool {
    !matches!(moment, Moment::Underway)
}

/// Whether a packet of that moment also voids its flow's entry: the host may decide otherwise for what it opens.
#[inline(always)]
#[must_use]
pub const fn voids(moment: Moment) -> bool {
    matches!(moment, Moment::Opening)
}

/// Whether the segment is a connection's very first: a SYN that acknowledges nothing.
#[inline(always)]
#[must_use]
pub const fn is_first(flags: u8) -> bool {
    flags & (SYN | ACK | FIN | RST) == SYN
}

/// Whether the segment accepts a connection: SYN-ACK.
#[inline(always)]
#[must_use]
pub const fn accepts(flags: u8) -> bool {
    flags & (SYN | ACK | FIN | RST) == SYN | ACK
}

/// The flags of a TCP segment that stands where an SCTP packet does whose first chunk is of the type `chunk`
/// (RFC 9260 §3.2).
#[inline(always)]
#[must_use]
pub const fn sctp_flags(chunk: u8) -> u8 {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const ABORT: u8 = 6;
    const SHUTDOWN: u8 = 7;
    const SHUTDOWN_ACK: u8 = 8;
    const SHUTDOWN_COMPLETE: u8 = 14;
    match chunk {
        INIT => SYN,
        INIT_ACK => SYN | ACK,
        SHUTDOWN | SHUTDOWN_ACK => FIN | ACK,
        ABORT | SHUTDOWN_COMPLETE => RST,
        _ => ACK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_association_opens_and_closes_as_a_connection_does() {
        let moments = [1, 2, 10, 11, 0, 3, 7, 8, 14, 6].map(|chunk| moment(sctp_flags(chunk)));
        assert_eq!(moments[..2], [Moment::Opening; 2]);
        assert_eq!(moments[2..6], [Moment::Underway; 4]);
        assert_eq!(moments[6..], [Moment::Closing; 4]);
        assert!(is_first(sctp_flags(1)) && !is_first(sctp_flags(2)));
    }

    #[test]
    fn every_flags_byte_has_the_moment_that_conntrack_would_see() {
        for flags in 0..=255u8 {
            let expected = match (flags & RST != 0 || flags & FIN != 0, flags & SYN != 0) {
                (true, _) => Moment::Closing,
                (false, true) => Moment::Opening,
                (false, false) => Moment::Underway,
            };
            assert_eq!(moment(flags), expected, "{flags:#04x}");
            assert_eq!(is_first(flags), flags & 0x17 == SYN, "{flags:#04x}");
            assert_eq!(accepts(flags), flags & 0x17 == SYN | ACK, "{flags:#04x}");
            assert_eq!(visits(expected), expected != Moment::Underway, "{flags:#04x}");
            assert_eq!(voids(expected), expected == Moment::Opening, "{flags:#04x}");
        }
    }
}
