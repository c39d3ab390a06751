//! Internet checksums (RFC 1071) and their incremental update (RFC 1624).
//!
//! Deltas are one's complement sums of machine-order words, as `bpf_csum_diff` gives them, so that they can be
//! handed to `bpf_l4_csum_replace` with a size of 0.

/// Adds two one's complement sums.
#[inline(always)]
#[must_use]
pub const fn add(a: u32, b: u32) -> u32 {
    let sum = a as u64 + b as u64;
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// Folds a sum to sixteen bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The delta that `from` becoming `to` makes.
#[inline(always)]
#[must_use]
pub const fn delta(from: u32, to: u32) -> u32 {
    add(!from, to)
}

/// A header checksum (as on the wire, machine-order word) after its bytes changed by `delta`.
/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
#[inline(always)]
#[must_use]
pub const fn updated(checksum: u16, delta: u32) -> u16 {
    !fold(add(!checksum as u32 & 0xffff, delta))
}

/// The delta of a hop less: the TTL byte shares its word with the protocol and goes down by one.
/// RFC 1141; `ip_decrease_ttl` (include/net/ip.h).
#[inline(always)]
#[must_use]
pub const fn hop_delta(ttl: u8, protocol: u8) -> u32 {
    let before = u16::from_ne_bytes([ttl, protocol]);
    let after = u16::from_ne_bytes([ttl.wrapping_sub(1), protocol]);
    add(!before as u32 & 0xffff, after as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 from scratch, over bytes.
    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn an_updated_checksum_is_the_one_computed_from_scratch(
            mut header in proptest::collection::vec(any::<u8>(), 20), to: u32, at in 3usize..5, hop: bool,
        ) {
            header[8] |= 1;
            header[10..12].fill(0);
            let mut before = checksum(&header);
            let from = u32::from_ne_bytes(header[at * 4..at * 4 + 4].try_into().unwrap());
            header[at * 4..at * 4 + 4].copy_from_slice(&to.to_ne_bytes());
            let mut change = delta(from, to);
            if hop {
                change = add(change, hop_delta(header[8], header[9]));
                header[8] -= 1;
            }
            before = updated(before, change);
            // One's complement has two zeroes; a header never sums to +0, so only equality will do.
            prop_assert_eq!(before, checksum(&header));
        }
    }
}
