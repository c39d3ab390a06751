//! SCTP's checksum (CRC32c, RFC 9260 §6.8 and appendix A) after ports changed, without reading the packet.
//!
//! A CRC is linear: that of a packet with other ports is that of the packet, plus (exclusive or) that of the change,
//! with zeros for all the rest. And zeros are quick: each of them multiplies by x^8, so that many of them multiply by
//! the few powers whose sum they are.

/// The polynomial 0x1EDC6F41, lowest power first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bits of the greatest length: that of an IP packet.
const LENGTH_BITS: usize = 16;

/// `x^(8 * 2^n)` for each `n`.
const POWERS: [u32; LENGTH_BITS] = powers();

const fn powers() -> [u32; LENGTH_BITS] {
    let mut powers = [0; LENGTH_BITS];
    // The lowest power has the highest bit: 1 is 1 << 31, and x^8 eight places below.
    let mut power = 1 << (31 - 8);
    let mut at = 0;
    while at < LENGTH_BITS {
        powers[at] = power;
        power = product(power, power);
        at += 1;
    }
    powers
}

/// The product of two polynomials. Without branches: the kernel's verifier would follow each way of each.
#[inline(always)]
const fn product(a: u32, b: u32) -> u32 {
    let (mut a, mut b, mut sum) = (a, b, 0);
    let mut at = 0;
    while at < 32 {
        sum ^= b & 0u32.wrapping_sub(a >> 31);
        a <<= 1;
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
        at += 1;
    }
    sum
}

/// The steps of [`delta`]: bits of a length.
pub const STEPS: u32 = LENGTH_BITS as u32;

/// Step `at` of [`delta`]: `crc` times x^8 for each of the zeros that bit `at` of `zeros` stands for.
#[inline(always)]
#[must_use]
pub fn step(crc: u32, zeros: u32, at: u32) -> u32 {
    let chosen = 0u32.wrapping_sub(zeros >> at & 1);
    let power = POWERS[(at & (STEPS - 1)) as usize];
    (product(crc, power) & chosen) | (crc & !chosen)
}

/// What is to be added (exclusive or) to the checksum field, both as the four octets on the wire read as a word of the
/// machine, when the first four octets of an SCTP packet of `length` octets change by `change` (old exclusive or new, octets
/// in their order). `steps` goes through [`STEPS`] steps: the programs have a loop of their own.
#[inline(always)]
#[must_use]
pub fn delta(change: [u8; 4], length: u16, steps: impl FnOnce(u32, u32) -> u32) -> u32 {
    // The first four octets alone are a polynomial times x^32: four zeros more than the register has seen.
    steps(u32::from_le_bytes(change), u32::from(length)).to_le()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From scratch, bit by bit, as the octets lie on the wire.
    fn checksum(packet: &[u8]) -> [u8; 4] {
        let mut crc = u32::MAX;
        for octet in packet {
            crc ^= u32::from(*octet);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            }
        }
        (!crc).to_le_bytes()
    }

    #[test]
    fn the_test_has_the_right_checksum() {
        // RFC 3720 appendix B.4: 32 octets of zeros.
        assert_eq!(checksum(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
    }

    proptest! {
        #[test]
        fn an_updated_checksum_is_the_one_computed_from_scratch(
            mut packet in proptest::collection::vec(any::<u8>(), 12..3000), ports: [u8; 4],
        ) {
            let before = checksum(&packet);
            let mut change = [0; 4];
            for (at, octet) in ports.into_iter().enumerate() {
                change[at] = packet[at] ^ octet;
                packet[at] = octet;
            }
            let length = u16::try_from(packet.len()).unwrap();
            let after = u32::from_ne_bytes(before) ^ delta(change, length, |crc, zeros| {
                (0..STEPS).fold(crc, |crc, at| step(crc, zeros, at))
            });
            prop_assert_eq!(after.to_ne_bytes(), checksum(&packet));
        }
    }
}
