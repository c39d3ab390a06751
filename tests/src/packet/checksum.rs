//! The Internet checksum (RFC 1071), written for tests alone: what the product computes must agree with code
//! that it shares nothing with.

/// The checksum of `data` by itself.
#[must_use]
pub fn of(data: &[u8]) -> u16 {
    finish(sum(data))
}

/// The sum of `data` as 16-bit words, not yet folded. An odd last octet stands for itself and a zero.
#[must_use]
pub fn sum(data: &[u8]) -> u64 {
    let words =
        data.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    words.sum()
}

/// Folds and inverts.
#[must_use]
pub fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).expect("folded")
}

/// SCTP's checksum of `packet`, whose own field is zero, as it lies on the wire (RFC 9260 appendix A).
#[must_use]
pub fn crc32c(packet: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for octet in packet {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_comes_out() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of(&data), !0xddf2);
    }

    #[test]
    fn data_followed_by_its_checksum_sums_to_nothing() {
        let mut data = b"an even text".to_vec();
        let sum = of(&data);
        data.extend(sum.to_be_bytes());
        assert_eq!(of(&data), 0);
    }
}
