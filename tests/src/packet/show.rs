//! Packets as people read them: one line for each layer, from octets and not from what they were built of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::build::{number, pseudo_header};
use super::checksum;
use super::layer::{Ip, ip};
use crate::cast::{CLIENT, Family, WEB};

/// A line for each layer of a frame; a checksum that does not fit says so.
#[must_use]
pub fn lines(frame: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    if ethernet(frame, &mut lines).is_none() {
        lines.push("(cut off here)".into());
    }
    lines
}

fn ethernet(frame: &[u8], lines: &mut Vec<String>) -> Option<()> {
    let header = frame.get(..14)?;
    let kind = short(header, 12)?;
    lines.push(format!("eth  {} > {} type {kind:#06x}", mac(&header[6..12]), mac(&header[..6])));
    let rest = &frame[14..];
    match kind {
        number::IPV4 => ipv4(rest, lines),
        number::IPV6 => ipv6(rest, lines),
        number::ARP => arp(rest, lines),
        _ => octets(rest, lines),
    }
}

fn ipv4(packet: &[u8], lines: &mut Vec<String>) -> Option<()> {
    let header = packet.get(..usize::from(packet.first()? & 15) * 4)?;
    let address =
        |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(header.get(at..at + 4)?).ok()?));
    let (source, destination) = (address(12)?, address(16)?);
    let flags = short(header, 6)?;
    let (offset, more) = ((flags & 0x1fff) * 8, flags & 0x2000 != 0);
    let (ttl, protocol) = (*header.get(8)?, *header.get(9)?);
    let sum = if checksum::of(header) == 0 { "" } else { " checksum wrong" };
    let options =
        if header.len() > 20 { format!(" options {}", header.len() - 20) } else { String::new() };
    let fragment = if offset > 0 || more {
        format!(" fragment {offset}{}", if more { "+" } else { "" })
    } else {
        String::new()
    };
    lines.push(format!(
        "ipv4 {source} > {destination} ttl {ttl} id {:#06x} length {} tos {}{}{options}{fragment}{sum}",
        short(header, 4)?,
        short(header, 2)?,
        header[1],
        if flags & 0x4000 != 0 { " DF" } else { "" },
    ));
    let rest = &packet[header.len()..];
    let addresses = Ip {
        source: source.into(),
        destination: destination.into(),
        ..ip(Family::V4, CLIENT, WEB)
    };
    if offset > 0 {
        octets(rest, lines)
    } else {
        transport(&addresses, protocol, rest, more, lines)
    }
}

fn ipv6(packet: &[u8], lines: &mut Vec<String>) -> Option<()> {
    let header = packet.get(..40)?;
    let address =
        |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?));
    let (source, destination) = (address(8)?, address(24)?);
    let (mut next, mut rest, mut more, mut offset) = (header[6], &packet[40..], false, 0);
    let mut extensions = String::new();
    while let number::FRAGMENT | number::DESTINATION_OPTIONS = next {
        let extension = rest.get(..8)?;
        if next == number::FRAGMENT {
            let word = short(extension, 2)?;
            (offset, more) = (word & !7, word & 1 != 0);
            extensions += &format!(" fragment {offset}{}", if more { "+" } else { "" });
        } else {
            extensions += " options 8";
        }
        (next, rest) = (extension[0], &rest[8..]);
    }
    lines.push(format!(
        "ipv6 {source} > {destination} hops {} length {} class {:#010x}{extensions}",
        header[7],
        short(header, 4)?,
        u32::from_be_bytes(header[..4].try_into().ok()?),
    ));
    let addresses = Ip {
        source: source.into(),
        destination: destination.into(),
        ..ip(Family::V6, CLIENT, WEB)
    };
    if offset > 0 { octets(rest, lines) } else { transport(&addresses, next, rest, more, lines) }
}

fn transport(
    ip: &Ip,
    protocol: u8,
    message: &[u8],
    is_part: bool,
    lines: &mut Vec<String>,
) -> Option<()> {
    let pseudo =
        if protocol == number::ICMP { 0 } else { pseudo_header(ip, protocol, message.len()) };
    let is_right = is_part || checksum::finish(pseudo + checksum::sum(message)) == 0;
    let sum = if is_right { "" } else { " checksum wrong" };
    let long = |at: usize| Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?));
    match protocol {
        number::TCP => {
            let length = usize::from(*message.get(12)? >> 4) * 4;
            let flags: String = "FSRPAUEC"
                .chars()
                .enumerate()
                .filter(|(bit, _)| message[13] >> bit & 1 == 1)
                .map(|(_, name)| name)
                .collect();
            lines.push(format!(
                "tcp  {} > {} [{flags}] seq {} ack {} window {}{sum}",
                short(message, 0)?,
                short(message, 2)?,
                long(4)?,
                long(8)?,
                short(message, 14)?,
            ));
            octets(message.get(length..)?, lines)
        }
        number::UDP => {
            let sum = if short(message, 6)? == 0 { " checksum none" } else { sum };
            let (source, destination) = (short(message, 0)?, short(message, 2)?);
            lines.push(format!("udp  {source} > {destination} length {}{sum}", short(message, 4)?));
            octets(message.get(8..)?, lines)
        }
        number::SCTP => {
            let mut zeroed = message.to_vec();
            zeroed.get_mut(8..12)?.fill(0);
            let sum = match message.get(8..12)? {
                [0, 0, 0, 0] => " checksum none",
                sum if is_part || sum == checksum::crc32c(&zeroed) => "",
                _ => " checksum wrong",
            };
            let chunk = *message.get(12)?;
            lines.push(format!(
                "sctp {} > {} chunk {chunk}{sum}",
                short(message, 0)?,
                short(message, 2)?
            ));
            octets(message.get(16..)?, lines)
        }
        number::ICMP | number::ICMPV6 => {
            let (kind, code) = (*message.first()?, *message.get(1)?);
            lines.push(format!("icmp type {kind} code {code} rest {:#010x}{sum}", long(4)?));
            octets(message.get(8..)?, lines)
        }
        other => {
            lines.push(format!("protocol {other}"));
            octets(message, lines)
        }
    }
}

fn arp(message: &[u8], lines: &mut Vec<String>) -> Option<()> {
    let who = |at: usize| {
        let octets = <[u8; 4]>::try_from(message.get(at + 6..at + 10)?).ok()?;
        Some(format!("{} {}", mac(message.get(at..at + 6)?), IpAddr::from(octets)))
    };
    lines.push(format!(
        "arp  operation {} sender {} target {}",
        short(message, 6)?,
        who(8)?,
        who(18)?
    ));
    octets(&message[28..], lines)
}

fn octets(octets: &[u8], lines: &mut Vec<String>) -> Option<()> {
    if !octets.is_empty() {
        let shown = octets[..octets.len().min(64)].escape_ascii();
        let more = if octets.len() > 64 { "…" } else { "" };
        lines.push(format!("data {} octets: {shown}{more}", octets.len()));
    }
    Some(())
}

fn short(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

fn mac(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}
