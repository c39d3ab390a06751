//! H(tuple): the keyed 32-bit hash that a packet carries through the host in `skb->hash`.
//!
//! It must be quick and hard to aim at, not cryptographic: two tuples that share a hash cost a visit, because
//! an entry is learned only from a packet with the fingerprint of the one that entered (`decide::identity`).

use crate::ip::{Address, IpVersion};
use crate::tuple::Tuple;

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of `tuple` under `key`. Never 0, which the kernel takes for "no hash yet" (`skb_get_hash`,
/// include/linux/skbuff.h).
#[inline(always)]
#[must_use]
pub fn of<V: IpVersion>(tuple: &Tuple<V>, key: u64) -> u32 {
    let ports = (tuple.source_port.get() as u64) << 24
        | (tuple.destination_port.get() as u64) << 8
        | tuple.protocol as u64;
    let mut state = key;
    state = mix(state ^ tuple.source.fold());
    state = mix(state ^ tuple.destination.fold());
    state = mix(state ^ ports ^ key.rotate_left(17));
    let hash = (state >> 32) as u32;
    let hash = if cfg!(feature = "narrow-hash") { hash & 0xff } else { hash };
    if hash == 0 { 1 } else { hash }
}

/// The hash of who sends `tuple`, to whomever, under `key`.
#[inline(always)]
#[must_use]
pub fn of_source<V: IpVersion>(tuple: &Tuple<V>, key: u64) -> u32 {
    let port = (tuple.source_port.get() as u64) << 8 | tuple.protocol as u64;
    let state = mix(key ^ tuple.source.fold());
    (mix(state ^ port ^ key.rotate_left(17)) >> 32) as u32
}

#[inline(always)]
const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 31)).wrapping_mul(MULTIPLIER);
    (state ^ (state >> 29)).wrapping_mul(MULTIPLIER)
}

/// The key of an epoch's hashes: of two packets that look alike, what is decided for one that entered in an epoch that has ended is
/// not taken to be decided for the other.
#[inline(always)]
#[must_use]
pub const fn key_of_epoch(key: u64, epoch: u32) -> u64 {
    key ^ (epoch as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::{Ipv4, V4};
    use crate::tuple::{Port, TCP};

    fn tuple(host: u8, port: u16) -> Tuple<V4> {
        Tuple {
            source: Ipv4 { octets: [10, 244, 0, host] },
            destination: Ipv4 { octets: [10, 96, 0, 1] },
            source_port: Port::new(port),
            destination_port: Port::new(443),
            protocol: TCP,
            _pad: [0; 3],
        }
    }

    #[test]
    fn hashes_of_a_nodes_flows_spread_as_random_ones_would() {
        let mut seen = std::collections::HashSet::new();
        for host in 0..=255 {
            for port in 32768..33024 {
                seen.insert(of(&tuple(host, port), 0x5eed));
            }
        }
        // 65,536 random 32-bit values collide 0.5 times on average; 20 would be a broken mix.
        assert!(seen.len() > 65_536 - 20, "{} distinct", seen.len());
    }

    #[test]
    fn another_key_gives_another_hash_and_the_direction_counts() {
        assert_ne!(of(&tuple(1, 1), 1), of(&tuple(1, 1), 2));
        assert_ne!(of(&tuple(1, 1), 1), of(&tuple(1, 1).reversed(), 1));
    }
}
