//! The tuple: who speaks to whom, one direction of a flow.

use bytemuck::{Pod, Zeroable};

use crate::ip::{Address, IpVersion, V4, V6};

/// Protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// Protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;
/// Protocol number of SCTP (RFC 9260).
pub const SCTP: u8 = 132;

/// A transport port or an ICMP echo identifier, network order.
#[repr(C, align(2))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Port {
    /// The two octets as on the wire.
    pub octets: [u8; 2],
}

impl Port {
    /// The port of a number as people write it.
    #[inline(always)]
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self { octets: number.to_be_bytes() }
    }

    /// The number as people write it.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.octets)
    }
}

/// One direction of a flow, as on the wire at one place. An ICMP echo has its identifier as the requester's
/// port and 0 as the other's, so that a reply's tuple is the reversed request's here too.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple<V: IpVersion> {
    /// Who speaks.
    pub source: V::Address,
    /// To whom.
    pub destination: V::Address,
    /// The speaker's port.
    pub source_port: Port,
    /// The other's port.
    pub destination_port: Port,
    /// IANA protocol number: [`TCP`], [`UDP`], [`SCTP`] or the family's ICMP.
    pub protocol: u8,
    /// Always zero: keys are compared byte by byte.
    pub _pad: [u8; 3],
}

// SAFETY: `repr(C)`, every field is Zeroable.
unsafe impl<V: IpVersion> Zeroable for Tuple<V> {}
// SAFETY: `repr(C)`, every field is Pod, and the assertions below show that nothing lies between them.
unsafe impl<V: IpVersion> Pod for Tuple<V> {}
const _: () = assert!(size_of::<Tuple<V4>>() == 4 + 4 + 2 + 2 + 1 + 3);
const _: () = assert!(size_of::<Tuple<V6>>() == 16 + 16 + 2 + 2 + 1 + 3);

impl<V: IpVersion> Tuple<V> {
    /// The tuple of the answers.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            _pad: [0; 3],
        }
    }

    /// The tuple folded into one word. Not keyed and not a hash: it tells two tuples that share a map slot
    /// over time from each other.
    #[inline(always)]
    #[must_use]
    pub fn tag(&self) -> u64 {
        let ports = (self.source_port.ne() as u64) << 16 | self.destination_port.ne() as u64;
        self.source.fold().rotate_left(32)
            ^ self.destination.fold()
            ^ ports << 8
            ^ self.protocol as u64
    }
}

impl Port {
    #[inline(always)]
    fn ne(self) -> u16 {
        u16::from_ne_bytes(self.octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Ipv4;

    #[test]
    fn a_reply_to_a_reply_is_the_request() {
        let tuple = Tuple::<V4> {
            source: Ipv4 { octets: [10, 0, 0, 1] },
            destination: Ipv4 { octets: [10, 0, 0, 2] },
            source_port: Port::new(40000),
            destination_port: Port::new(80),
            protocol: TCP,
            _pad: [0; 3],
        };
        assert_ne!(tuple.reversed(), tuple);
        assert_eq!(tuple.reversed().reversed(), tuple);
        assert_ne!(tuple.tag(), tuple.reversed().tag());
        assert_eq!(tuple.source_port.octets, [0x9c, 0x40]);
    }
}
