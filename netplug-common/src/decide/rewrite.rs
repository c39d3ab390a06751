//! What a translation does to the checksums that cover it.

use crate::checksum::{add, delta};
use crate::ip::{Address, IpVersion};
use crate::tuple::{Port, Tuple};

/// The two deltas of a translation: `addresses` concerns every checksum over a pseudo-header (and the IPv4
/// header's own), `ports` those over the transport header. The kernel keeps them apart because a packet with
/// CHECKSUM_PARTIAL has only the first in its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deltas {
    /// Of both addresses.
    pub addresses: u32,
    /// Of both ports.
    pub ports: u32,
}

/// The deltas of `from` becoming `to`.
#[inline(always)]
#[must_use]
pub fn deltas<V: IpVersion>(from: &Tuple<V>, to: &Tuple<V>) -> Deltas {
    let addresses = add(
        address_delta(&from.source, &to.source),
        address_delta(&from.destination, &to.destination),
    );
    let ports = delta(
        port_word(from.source_port, from.destination_port),
        port_word(to.source_port, to.destination_port),
    );
    Deltas { addresses, ports: if ports == u32::MAX { 0 } else { ports } }
}

#[inline(always)]
fn port_word(source: Port, destination: Port) -> u32 {
    let [a, b] = source.octets;
    let [c, d] = destination.octets;
    u32::from_ne_bytes([a, b, c, d])
}

/// One's complement has two zeroes; the deltas keep to the positive one, so that "no change" is 0.
#[inline(always)]
fn address_delta<A: Address>(from: &A, to: &A) -> u32 {
    let from: &[u32] = bytemuck::cast_slice(core::slice::from_ref(from));
    let to: &[u32] = bytemuck::cast_slice(core::slice::from_ref(to));
    let mut sum = 0;
    let mut at = 0;
    while at < size_of::<A>() / 4 {
        let step = delta(from[at], to[at]);
        sum = add(sum, if step == u32::MAX { 0 } else { step });
        at += 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::updated;
    use crate::ip::{Ipv6, V6};
    use proptest::prelude::*;

    fn sum(tuple: &Tuple<V6>) -> u16 {
        let mut sum = 0u32;
        for bytes in [
            &tuple.source.octets[..],
            &tuple.destination.octets[..],
            &tuple.source_port.octets,
            &tuple.destination_port.octets,
        ] {
            for pair in bytes.chunks(2) {
                sum += u32::from(u16::from_ne_bytes([pair[0], pair[1]]));
            }
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    prop_compose! {
        fn tuples()(source: [u8; 16], destination: [u8; 16], ports: [u16; 2]) -> Tuple<V6> {
            Tuple {
                source: Ipv6 { octets: source },
                destination: Ipv6 { octets: destination },
                source_port: Port::new(ports[0]),
                destination_port: Port::new(ports[1]),
                protocol: 6,
                _pad: [0; 3],
            }
        }
    }

    proptest! {
        #[test]
        fn deltas_carry_one_checksum_to_the_other(from in tuples(), to in tuples()) {
            let deltas = deltas(&from, &to);
            prop_assert_eq!(updated(sum(&from), add(deltas.addresses, deltas.ports)), sum(&to));
        }

        #[test]
        fn no_change_is_zero(tuple in tuples()) {
            prop_assert_eq!(deltas(&tuple, &tuple), Deltas { addresses: 0, ports: 0 });
        }
    }
}
