//! From layers to octets, innermost first: each layer knows what it encloses, and the IP layer above it lends its
//! addresses to the checksum.

use std::net::IpAddr;

use super::checksum;
use super::layer::{Arp, Icmp, Ip, Layer, Neighbour, Sctp, Tcp, Udp};

/// Protocol numbers and Ethernet types.
pub(super) mod number {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const FRAGMENT: u8 = 44;
    pub const ICMPV6: u8 = 58;
    pub const NO_NEXT: u8 = 59;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
}

pub(super) fn bytes(layers: &[Layer]) -> Vec<u8> {
    let Some((layer, inner)) = layers.split_first() else { return Vec::new() };
    match layer {
        Layer::Eth(eth) => {
            let kind = match inner.first() {
                Some(Layer::Ip(ip)) if ip.source.is_ipv6() => number::IPV6,
                Some(Layer::Arp(_)) => number::ARP,
                _ => number::IPV4,
            };
            [&eth.destination[..], &eth.source, &kind.to_be_bytes(), &bytes(inner)].concat()
        }
        Layer::Ip(ip) => network(ip, inner),
        Layer::Arp(arp) => [self::arp(arp), bytes(inner)].concat(),
        Layer::Payload(payload) => [payload.0.clone(), bytes(inner)].concat(),
        // Without an IP layer around it there is no pseudo header, so nothing can be summed.
        transport => self::transport(transport, None, &bytes(inner)),
    }
}

fn network(ip: &Ip, inner: &[Layer]) -> Vec<u8> {
    let six = ip.source.is_ipv6();
    let (protocol, content) = match inner.split_first() {
        Some((
            layer @ (Layer::Tcp(_)
            | Layer::Udp(_)
            | Layer::Sctp(_)
            | Layer::Icmp(_)
            | Layer::Neighbour(_)),
            rest,
        )) => {
            let protocol = match layer {
                Layer::Tcp(_) => number::TCP,
                Layer::Udp(_) => number::UDP,
                Layer::Sctp(_) => number::SCTP,
                _ if six => number::ICMPV6,
                _ => number::ICMP,
            };
            (protocol, transport(layer, Some(ip), &bytes(rest)))
        }
        // A later fragment: of UDP, if nobody says otherwise.
        Some(_) => (number::UDP, bytes(inner)),
        None => (number::NO_NEXT, Vec::new()),
    };
    if six { ipv6(ip, protocol, &content) } else { ipv4(ip, protocol, &content) }
}

fn ipv4(ip: &Ip, protocol: u8, content: &[u8]) -> Vec<u8> {
    let words = 5 + ip.options;
    let length = usize::from(words) * 4 + content.len();
    let (offset, more) = ip.fragment.unwrap_or((0, false));
    let flags = u16::from(ip.dont_fragment) << 14 | u16::from(more) << 13 | (offset / 8);
    let mut header = vec![0x40 | words, ip.service];
    header.extend(short(length));
    header.extend(ip.id.to_be_bytes());
    header.extend(flags.to_be_bytes());
    header.extend([ip.ttl, protocol, 0, 0]);
    header.extend(octets(ip.source));
    header.extend(octets(ip.destination));
    // No-operation options.
    header.extend(vec![1; usize::from(ip.options) * 4]);
    let sum = checksum::of(&header) ^ u16::from(ip.bad_checksum);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(content);
    header
}

fn ipv6(ip: &Ip, protocol: u8, content: &[u8]) -> Vec<u8> {
    let mut next = protocol;
    let mut inside = content.to_vec();
    let mut wrap = |kind: u8, header: [u8; 8]| {
        let mut header = header;
        header[0] = next;
        inside.splice(..0, header);
        next = kind;
    };
    for _ in 0..ip.options {
        // PadN of four octets.
        wrap(number::DESTINATION_OPTIONS, [0, 0, 1, 4, 0, 0, 0, 0]);
    }
    if let Some((offset, more)) = ip.fragment {
        let [high, low] = (offset & !7 | u16::from(more)).to_be_bytes();
        let [a, b] = ip.id.to_be_bytes();
        wrap(number::FRAGMENT, [0, 0, high, low, 0, 0, a, b]);
    }
    let mut packet = vec![0x60 | ip.service >> 4, ip.service << 4, 0, 0];
    packet.extend(short(inside.len()));
    packet.extend([next, ip.ttl]);
    packet.extend(octets(ip.source));
    packet.extend(octets(ip.destination));
    packet.extend(inside);
    packet
}

fn transport(layer: &Layer, ip: Option<&Ip>, content: &[u8]) -> Vec<u8> {
    if let Layer::Sctp(layer) = layer {
        return sctp(layer, content);
    }
    let six = ip.is_some_and(|ip| ip.source.is_ipv6());
    let (mut message, at, protocol, bad) = match layer {
        Layer::Tcp(tcp) => (self::tcp(tcp), 16, number::TCP, tcp.bad_checksum),
        Layer::Udp(udp) => (self::udp(udp, content.len()), 6, number::UDP, udp.bad_checksum),
        Layer::Icmp(icmp) if six => {
            (self::icmp(icmp, icmp.kinds.1), 2, number::ICMPV6, icmp.bad_checksum)
        }
        Layer::Icmp(icmp) => (self::icmp(icmp, icmp.kinds.0), 2, number::ICMP, icmp.bad_checksum),
        Layer::Neighbour(message) => (neighbour(message), 2, number::ICMPV6, false),
        other => return bytes(std::slice::from_ref(other)),
    };
    message.extend(content);
    if matches!(layer, Layer::Udp(udp) if udp.no_checksum) {
        return message;
    }
    let pseudo = match ip {
        Some(ip) if protocol != number::ICMP => pseudo_header(ip, protocol, message.len()),
        _ => 0,
    };
    let mut sum = checksum::finish(pseudo + checksum::sum(&message)) ^ u16::from(bad);
    if protocol == number::UDP && sum == 0 {
        sum = 0xffff;
    }
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    message
}

/// What addresses, protocol and length add to a transport's sum; of both families the same, but for the addresses.
pub(super) fn pseudo_header(ip: &Ip, protocol: u8, length: usize) -> u64 {
    let addresses = checksum::sum(&octets(ip.source)) + checksum::sum(&octets(ip.destination));
    addresses + u64::from(protocol) + length as u64
}

fn tcp(tcp: &Tcp) -> Vec<u8> {
    let mut header = [tcp.source.to_be_bytes(), tcp.destination.to_be_bytes()].concat();
    header.extend(tcp.sequence.to_be_bytes());
    header.extend(tcp.acknowledgement.to_be_bytes());
    header.extend([5 << 4, tcp.flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn udp(udp: &Udp, content: usize) -> Vec<u8> {
    [udp.source.to_be_bytes(), udp.destination.to_be_bytes(), short(8 + content), [0, 0]].concat()
}

fn sctp(sctp: &Sctp, content: &[u8]) -> Vec<u8> {
    let mut packet = [sctp.source.to_be_bytes(), sctp.destination.to_be_bytes()].concat();
    packet.extend([1, 2, 3, 4, 0, 0, 0, 0, sctp.chunk, 0]);
    packet.extend(short(4 + content.len()));
    packet.extend(content);
    if !sctp.no_checksum {
        let sum = checksum::crc32c(&packet);
        packet[8..12].copy_from_slice(&sum);
    }
    packet
}

fn icmp(icmp: &Icmp, kind: u8) -> Vec<u8> {
    let mut header = vec![kind, icmp.code, 0, 0];
    header.extend(icmp.rest);
    header
}

fn neighbour(message: &Neighbour) -> Vec<u8> {
    // Advertisements are solicited and override.
    let (kind, flags, option) = if message.advertises { (136, 0x60, 2) } else { (135, 0, 1) };
    let mut octets = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    octets.extend(message.target.octets());
    octets.extend([option, 1]);
    octets.extend(message.mac);
    octets
}

fn arp(arp: &Arp) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(arp.operation.to_be_bytes());
    for (mac, address) in [arp.sender, arp.target] {
        message.extend(mac);
        message.extend(address.octets());
    }
    message
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// A length field; one that does not fit shows as the largest, as GSO packets' do.
fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
