//! IPv4 and IPv6 from one source: the sealed trait that names what differs, and the address types.

use bytemuck::{Pod, Zeroable};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::V4 {}
    impl Sealed for super::V6 {}
}

/// One of the two families. Carries what differs between them and nothing else.
pub trait IpVersion: sealed::Sealed + Copy + Eq + core::fmt::Debug + Send + Sync + 'static {
    /// The family's address, in network order.
    type Address: Address;
    /// EtherType (IEEE 802.3), host order.
    const ETHERTYPE: u16;
    /// Length of the fixed header, in bytes (RFC 791 §3.1 without options, RFC 8200 §3).
    const HEADER_LENGTH: u32;
    /// Protocol number of the family's ICMP (RFC 792, RFC 4443).
    const ICMP: u8;
    /// ICMP type of an echo request.
    const ECHO_REQUEST: u8;
    /// ICMP type of an echo reply.
    const ECHO_REPLY: u8;
    /// The types of ICMP errors: each quotes the packet that it is about (RFC 792; RFC 4443 §2.1).
    const ERRORS: &'static [u8];
    /// `AF_INET` or `AF_INET6` (include/linux/socket.h).
    const ADDRESS_FAMILY: u8;
}

/// What the decisions need of an address.
pub trait Address: Copy + Eq + core::fmt::Debug + core::hash::Hash + Pod + Send + Sync {
    /// Whether packets to it may be meant for several hosts, or for none: multicast, broadcast, unspecified.
    fn is_for_one_host(&self) -> bool;
    /// Whether it is valid on one link only (RFC 3927, RFC 4291 §2.5.6).
    fn is_link_local(&self) -> bool;
    /// Whether it is of its host alone: 127.0.0.0/8, ::1.
    fn is_loopback(&self) -> bool;
    /// The unspecified address.
    fn is_unspecified(&self) -> bool;
    /// Folds the address into one word, for hashing.
    fn fold(&self) -> u64;
}

/// IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4;

/// IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6;

/// An IPv4 address, network order. Aligned so that the programs copy it as one word.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Ipv4 {
    /// The four octets as on the wire.
    pub octets: [u8; 4],
}

/// An IPv6 address, network order. Aligned so that the programs copy it by words.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Ipv6 {
    /// The sixteen octets as on the wire.
    pub octets: [u8; 16],
}

impl IpVersion for V4 {
    type Address = Ipv4;
    const ETHERTYPE: u16 = 0x0800;
    const HEADER_LENGTH: u32 = 20;
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const ERRORS: &'static [u8] = &[3, 11, 12];
    const ADDRESS_FAMILY: u8 = 2;
}

impl IpVersion for V6 {
    type Address = Ipv6;
    const ETHERTYPE: u16 = 0x86dd;
    const HEADER_LENGTH: u32 = 40;
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const ERRORS: &'static [u8] = &[1, 2, 3, 4];
    const ADDRESS_FAMILY: u8 = 10;
}

impl Address for Ipv4 {
    #[inline(always)]
    fn is_for_one_host(&self) -> bool {
        self.octets[0] < 224 && self.octets[0] != 0
    }

    #[inline(always)]
    fn is_link_local(&self) -> bool {
        self.octets[0] == 169 && self.octets[1] == 254
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        self.octets[0] == 127
    }

    #[inline(always)]
    fn is_unspecified(&self) -> bool {
        u32::from_ne_bytes(self.octets) == 0
    }

    #[inline(always)]
    fn fold(&self) -> u64 {
        u32::from_ne_bytes(self.octets) as u64
    }
}

impl Ipv6 {
    /// The address as two words, each in the machine's order.
    #[inline(always)]
    #[must_use]
    pub fn words(&self) -> [u64; 2] {
        bytemuck::cast(self.octets_aligned())
    }

    #[inline(always)]
    fn octets_aligned(&self) -> Aligned16 {
        bytemuck::cast(*self)
    }
}

#[repr(C, align(8))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Aligned16([u8; 16]);

impl Address for Ipv6 {
    #[inline(always)]
    fn is_for_one_host(&self) -> bool {
        self.octets[0] != 0xff && !self.is_unspecified()
    }

    #[inline(always)]
    fn is_link_local(&self) -> bool {
        self.octets[0] == 0xfe && self.octets[1] & 0xc0 == 0x80
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        let [high, low] = self.words();
        high == 0 && low == 1u64.to_be()
    }

    #[inline(always)]
    fn is_unspecified(&self) -> bool {
        let [high, low] = self.words();
        high | low == 0
    }

    #[inline(always)]
    fn fold(&self) -> u64 {
        let [high, low] = self.words();
        high.rotate_left(29) ^ low
    }
}

#[cfg(feature = "user")]
mod user {
    use core::net::{Ipv4Addr, Ipv6Addr};

    impl From<Ipv4Addr> for super::Ipv4 {
        fn from(address: Ipv4Addr) -> Self {
            Self { octets: address.octets() }
        }
    }

    impl From<super::Ipv4> for Ipv4Addr {
        fn from(address: super::Ipv4) -> Self {
            address.octets.into()
        }
    }

    impl From<Ipv6Addr> for super::Ipv6 {
        fn from(address: Ipv6Addr) -> Self {
            Self { octets: address.octets() }
        }
    }

    impl From<super::Ipv6> for Ipv6Addr {
        fn from(address: super::Ipv6) -> Self {
            address.octets.into()
        }
    }
}
