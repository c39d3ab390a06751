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

/// Whether the segment is a connection's very first: a SYN that acknowledges nothing.
#[inline(always)]
#[must_use]
pub const fn is_first(flags: u8) -> bool {
    flags & (SYN | ACK | FIN | RST) == SYN
}

#[cfg(test)]
mod tests {
    use super::*;

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
        }
    }
}
