//! The layers, and what may be said of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Packet;
use crate::cast::{Actor, Family};

/// One layer of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet.
    Eth(Eth),
    /// IPv4 or IPv6.
    Ip(Ip),
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// SCTP.
    Sctp(Sctp),
    /// ICMP or ICMPv6; which, its IP layer says.
    Icmp(Icmp),
    /// ARP.
    Arp(Arp),
    /// Neighbour discovery.
    Neighbour(Neighbour),
    /// Octets.
    Payload(Payload),
}

/// An Ethernet header. The type follows from what is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eth {
    /// Who sends.
    pub source: [u8; 6],
    /// To whom.
    pub destination: [u8; 6],
}

/// An IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// Who sends.
    pub source: IpAddr,
    /// To whom; of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub service: u8,
    /// Identification, of IPv4 or of a fragment.
    pub id: u16,
    /// IPv4: words of options. IPv6: destination options headers of eight octets.
    pub options: u8,
    /// Offset in octets, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    /// IPv4: whether it must not be fragmented.
    pub dont_fragment: bool,
    pub(super) bad_checksum: bool,
}

/// A TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// The eight flags, FIN lowest.
    pub flags: u8,
    pub(super) bad_checksum: bool,
}

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Whether the checksum field is left zero.
    pub no_checksum: bool,
    pub(super) bad_checksum: bool,
}

/// An SCTP header and the type of the first chunk, which is the payload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sctp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Type of the first chunk.
    pub chunk: u8,
    /// Whether the checksum field is left zero, as for a device that fills it in.
    pub no_checksum: bool,
}

/// An ICMP header, as far as both families have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// Type in ICMP and in ICMPv6.
    pub kinds: (u8, u8),
    /// Code.
    pub code: u8,
    /// The second word: identifier and sequence of an echo.
    pub rest: [u8; 4],
    pub(super) bad_checksum: bool,
}

/// An ARP message about IPv4 and Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Who speaks.
    pub sender: ([u8; 6], Ipv4Addr),
    /// About whom.
    pub target: ([u8; 6], Ipv4Addr),
}

/// A neighbour solicitation or advertisement with its link-layer address option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Whether it answers.
    pub advertises: bool,
    /// About whom.
    pub target: Ipv6Addr,
    /// The link-layer address in the option.
    pub mac: [u8; 6],
}

/// Octets as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub Vec<u8>);

macro_rules! into_layer {
    ($($layer:ident)*) => {$(
        impl From<$layer> for Layer {
            fn from(layer: $layer) -> Self {
                Self::$layer(layer)
            }
        }
    )*};
}
into_layer!(Eth Ip Tcp Udp Sctp Icmp Arp Neighbour Payload);

/// A frame from one of the cast to another.
#[must_use]
pub const fn eth(source: Actor, destination: Actor) -> Eth {
    Eth { source: source.mac, destination: destination.mac }
}

/// A packet from one of the cast to another.
#[must_use]
pub const fn ip(family: Family, source: Actor, destination: Actor) -> Ip {
    Ip {
        source: source.ip(family),
        destination: destination.ip(family),
        ttl: 64,
        service: 0,
        id: 0x6e70,
        options: 0,
        fragment: None,
        dont_fragment: true,
        bad_checksum: false,
    }
}

/// An IPv4 packet.
#[must_use]
pub const fn ipv4(source: Actor, destination: Actor) -> Ip {
    ip(Family::V4, source, destination)
}

/// An IPv6 packet.
#[must_use]
pub const fn ipv6(source: Actor, destination: Actor) -> Ip {
    ip(Family::V6, source, destination)
}

impl Ip {
    /// With this TTL or hop limit.
    #[must_use]
    pub const fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// With this type of service or traffic class.
    #[must_use]
    pub const fn service(self, service: u8) -> Self {
        Self { service, ..self }
    }

    /// With this identification (IPv4, and fragments of IPv6).
    #[must_use]
    pub const fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    /// With `count` words of options (IPv4) or destination options headers (IPv6).
    #[must_use]
    pub const fn options(self, count: u8) -> Self {
        Self { options: count, ..self }
    }

    /// A fragment that begins at `offset` octets (a multiple of eight).
    #[must_use]
    pub const fn fragment(self, offset: u16, more: bool) -> Self {
        Self { fragment: Some((offset, more)), dont_fragment: false, ..self }
    }

    /// With a header checksum that is wrong (IPv4; IPv6 has none).
    #[must_use]
    pub const fn bad_checksum(self) -> Self {
        Self { bad_checksum: true, ..self }
    }
}

/// A TCP segment without flags.
#[must_use]
pub const fn tcp(source: u16, destination: u16) -> Tcp {
    Tcp {
        source,
        destination,
        sequence: 1_000,
        acknowledgement: 2_000,
        flags: 0,
        bad_checksum: false,
    }
}

impl Tcp {
    const fn flag(self, flag: u8) -> Self {
        Self { flags: self.flags | flag, ..self }
    }

    /// At this place of the stream.
    #[must_use]
    pub const fn sequence(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }

    /// Acknowledging this place of the other stream.
    #[must_use]
    pub const fn acknowledges(self, acknowledgement: u32) -> Self {
        Self { acknowledgement, ..self }.ack()
    }

    /// With FIN.
    #[must_use]
    pub const fn fin(self) -> Self {
        self.flag(1)
    }

    /// With SYN.
    #[must_use]
    pub const fn syn(self) -> Self {
        self.flag(2)
    }

    /// With RST.
    #[must_use]
    pub const fn rst(self) -> Self {
        self.flag(4)
    }

    /// With ACK.
    #[must_use]
    pub const fn ack(self) -> Self {
        self.flag(16)
    }

    /// With a checksum that is wrong.
    #[must_use]
    pub const fn bad_checksum(self) -> Self {
        Self { bad_checksum: true, ..self }
    }
}

/// A UDP datagram.
#[must_use]
pub const fn udp(source: u16, destination: u16) -> Udp {
    Udp { source, destination, no_checksum: false, bad_checksum: false }
}

impl Udp {
    /// Without a checksum.
    #[must_use]
    pub const fn no_checksum(self) -> Self {
        Self { no_checksum: true, ..self }
    }

    /// With a checksum that is wrong.
    #[must_use]
    pub const fn bad_checksum(self) -> Self {
        Self { bad_checksum: true, ..self }
    }
}

/// An SCTP packet that carries data.
#[must_use]
pub const fn sctp(source: u16, destination: u16) -> Sctp {
    Sctp { source, destination, chunk: 0, no_checksum: false }
}

impl Sctp {
    /// With a first chunk of this type.
    #[must_use]
    pub const fn chunk(self, chunk: u8) -> Self {
        Self { chunk, ..self }
    }

    /// Without a checksum.
    #[must_use]
    pub const fn no_checksum(self) -> Self {
        Self { no_checksum: true, ..self }
    }
}

/// An echo request.
#[must_use]
pub const fn echo(identifier: u16, sequence: u16) -> Icmp {
    let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    Icmp { kinds: (8, 128), code: 0, rest: [a, b, c, d], bad_checksum: false }
}

/// An echo reply.
#[must_use]
pub const fn echo_reply(identifier: u16, sequence: u16) -> Icmp {
    Icmp { kinds: (0, 129), ..echo(identifier, sequence) }
}

/// An error that says that a packet was too long for a link of `mtu`.
#[must_use]
pub const fn too_big(family: Family, mtu: u16) -> Icmp {
    let [a, b] = mtu.to_be_bytes();
    let code = if matches!(family, Family::V4) { 4 } else { 0 };
    Icmp { kinds: (3, 2), code, rest: [0, 0, a, b], bad_checksum: false }
}

/// An error that says that nobody listens on a port.
#[must_use]
pub const fn port_unreachable(family: Family) -> Icmp {
    let code = if matches!(family, Family::V4) { 3 } else { 4 };
    Icmp { kinds: (3, 1), code, rest: [0; 4], bad_checksum: false }
}

/// What an error quotes of a packet: `octets` of it, from its IP header on.
#[must_use]
pub fn quoting(packet: &Packet, octets: usize) -> Payload {
    Payload(packet.bytes()[14..].iter().copied().take(octets).collect())
}

impl Icmp {
    /// With a checksum that is wrong.
    #[must_use]
    pub const fn bad_checksum(self) -> Self {
        Self { bad_checksum: true, ..self }
    }
}

/// A message of neighbour discovery that only a router sends: its ICMPv6 type, and nothing that matters behind it.
#[must_use]
pub const fn router_message(kind: u8) -> Icmp {
    Icmp { kinds: (0, kind), code: 0, rest: [0; 4], bad_checksum: false }
}

/// Octets.
#[must_use]
pub fn payload(octets: &[u8]) -> Payload {
    Payload(octets.into())
}

/// `who` asks everybody for the MAC of `about`.
#[must_use]
pub fn arp_request(who: Actor, about: Ipv4Addr) -> Packet {
    let arp = Arp { operation: 1, sender: (who.mac, who.v4), target: ([0; 6], about) };
    Eth { source: who.mac, destination: [0xff; 6] } / arp
}

/// `who` tells `whom` its MAC.
#[must_use]
pub fn arp_reply(who: Actor, whom: Actor) -> Packet {
    let arp = Arp { operation: 2, sender: (who.mac, who.v4), target: (whom.mac, whom.v4) };
    eth(who, whom) / arp
}

/// `who` asks for the MAC of `about`, by its solicited-node multicast address.
#[must_use]
pub fn neighbour_solicitation(who: Actor, about: Ipv6Addr) -> Packet {
    let [.., a, b, c] = about.octets();
    let group =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let everyone = Actor {
        name: "group",
        v4: Ipv4Addr::BROADCAST,
        v6: group,
        mac: [0x33, 0x33, 0xff, a, b, c],
    };
    let message = Neighbour { advertises: false, target: about, mac: who.mac };
    eth(who, everyone) / ipv6(who, everyone).ttl(255) / message
}

/// `who` tells `whom` its MAC.
#[must_use]
pub fn neighbour_advertisement(who: Actor, whom: Actor) -> Packet {
    let message = Neighbour { advertises: true, target: who.v6, mac: who.mac };
    eth(who, whom) / ipv6(who, whom).ttl(255) / message
}
