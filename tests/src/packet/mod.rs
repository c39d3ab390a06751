//! A language for packets: layers joined by `/`, with sane defaults, broken on purpose and by name.
//!
//! ```
//! use netplug_tests::cast::{CLIENT, Family, WEB};
//! use netplug_tests::packet::{eth, ip, payload, tcp};
//!
//! let data = eth(CLIENT, WEB) / ip(Family::V4, CLIENT, WEB) / tcp(40000, 80).ack() / payload(b"hello");
//! assert_eq!(data.bytes().len(), 14 + 20 + 20 + 5);
//! let broken = eth(CLIENT, WEB) / ip(Family::V6, CLIENT, WEB) / tcp(40000, 80).bad_checksum();
//! println!("{broken}");
//! ```
//!
//! Lengths, next protocols and checksums are filled in by [`Packet::bytes`], the latter by [`checksum`], which is
//! none of the product's code. [`difference`] tells two packets apart field by field, and leaves a pcap.

mod build;
pub mod checksum;
mod difference;
mod fragments;
mod layer;
mod pcap;
mod show;

use std::ops::Div;

pub use difference::{assert_same, difference};
pub use fragments::fragments;
pub use layer::{Arp, Eth, Icmp, Ip, Layer, Neighbour, Payload, Sctp, Tcp, Udp};
pub use layer::{arp_reply, arp_request, echo, echo_reply, eth, ip, ipv4, ipv6};
pub use layer::{
    neighbour_advertisement, neighbour_solicitation, payload, router_message, sctp, tcp, udp,
};
pub use layer::{port_unreachable, quoting, too_big};
pub use pcap::write_pcap;
pub use show::lines;

/// A packet under construction: its layers, outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Outermost first.
    pub layers: Vec<Layer>,
    /// Octets to keep; what is beyond is cut off.
    truncated: Option<usize>,
}

impl Packet {
    /// The packet cut off after `length` octets, whatever its headers say.
    #[must_use]
    pub fn truncated_to(self, length: usize) -> Self {
        Self { truncated: Some(length), ..self }
    }

    /// The packet as it is on the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = build::bytes(&self.layers);
        bytes.truncate(self.truncated.unwrap_or(usize::MAX));
        bytes
    }
}

impl<L: Into<Layer>> From<L> for Packet {
    fn from(layer: L) -> Self {
        Self { layers: vec![layer.into()], truncated: None }
    }
}

impl<L: Into<Layer>> Div<L> for Packet {
    type Output = Self;

    fn div(mut self, inner: L) -> Self {
        self.layers.push(inner.into());
        self
    }
}

impl<L: Into<Layer>> Div<L> for Eth {
    type Output = Packet;

    fn div(self, inner: L) -> Packet {
        Packet::from(self) / inner
    }
}

impl std::fmt::Display for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&lines(&self.bytes()).join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::{CLIENT, Family, WEB};

    #[test]
    fn a_packet_of_each_kind_shows_as_one_line_per_layer() {
        for family in Family::BOTH {
            let packet = eth(CLIENT, WEB)
                / ip(family, CLIENT, WEB)
                / tcp(40_000, 80).syn()
                / payload(b"abc");
            let shown = packet.to_string();
            assert_eq!(shown.lines().count(), 4, "{shown}");
            assert!(!shown.contains("wrong"), "{shown}");
            let broken = eth(CLIENT, WEB)
                / ip(family, CLIENT, WEB)
                / udp(1, 2).bad_checksum()
                / payload(b"abc");
            assert!(broken.to_string().contains("wrong"), "{broken}");
            let echo = eth(CLIENT, WEB) / ip(family, CLIENT, WEB) / echo(7, 1) / payload(b"abc");
            assert!(!echo.to_string().contains("wrong"), "{echo}");
        }
    }

    #[test]
    fn a_udp_packet_is_what_another_implementation_makes_of_it() {
        // Built by hand from RFC 768 and RFC 791: 10.244.0.11:4660 > 10.244.0.10:80, "hi".
        let packet = eth(CLIENT, WEB) / ipv4(CLIENT, WEB) / udp(0x1234, 80) / payload(b"hi");
        let bytes = packet.bytes();
        assert_eq!(&bytes[..14], b"\x02web_1\x02clnt1\x08\x00");
        assert_eq!(bytes[14..16], [0x45, 0]);
        assert_eq!(bytes[16..18], [0, 30]);
        let sum = checksum::of(&bytes[14..34]);
        assert_eq!(sum, 0);
        assert_eq!(bytes[34..40], [0x12, 0x34, 0, 80, 0, 10]);
    }

    #[test]
    fn breaking_on_purpose_breaks_what_it_says() {
        let whole = eth(CLIENT, WEB)
            / ipv4(CLIENT, WEB).options(2).fragment(8, true).ttl(1)
            / payload(b"abcd");
        let bytes = whole.bytes();
        assert_eq!(bytes[14], 0x47);
        assert_eq!(bytes[20..22], [0x20, 1]);
        assert_eq!(bytes[22], 1);
        assert_eq!(whole.truncated_to(20).bytes().len(), 20);
        let six = eth(CLIENT, WEB) / ipv6(CLIENT, WEB).fragment(16, false).options(1) / udp(1, 2);
        assert!(six.to_string().contains("fragment"), "{six}");
    }

    #[test]
    fn a_difference_names_the_field() {
        let one = eth(CLIENT, WEB) / ipv4(CLIENT, WEB) / tcp(1, 2).ack();
        let two = eth(CLIENT, WEB) / ipv4(CLIENT, WEB).ttl(63) / tcp(1, 2).ack();
        let told = difference(&one.bytes(), &two.bytes()).unwrap();
        assert!(told.contains("ttl 64") && told.contains("ttl 63"), "{told}");
        assert_eq!(difference(&one.bytes(), &one.bytes()), None);
    }

    #[test]
    fn neighbours_are_asked_in_both_families() {
        let asked = [
            arp_request(CLIENT, WEB.v4),
            arp_reply(WEB, CLIENT),
            neighbour_solicitation(CLIENT, WEB.v6),
            neighbour_advertisement(WEB, CLIENT),
        ];
        for packet in asked {
            assert!(!packet.to_string().contains("wrong"), "{packet}");
        }
    }
}
