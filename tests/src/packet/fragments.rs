//! A packet cut into fragments, as a host would (RFC 791 §3.2, RFC 8200 §4.5).

use super::build::number;
use super::{Packet, checksum};

const ETHERNET: usize = 14;

/// The frames of `packet`, an IP packet without options, with `size` octets (a multiple of eight) of what lies behind its IP
/// header in each but the last.
#[must_use]
pub fn fragments(packet: &Packet, size: usize, id: u16) -> Vec<Vec<u8>> {
    let whole = packet.bytes();
    let is_v6 = whole[ETHERNET] >> 4 == 6;
    let header = ETHERNET + if is_v6 { 40 } else { 20 };
    let parts: Vec<_> = whole[header..].chunks(size).collect();
    let cut = |(index, part): (usize, &&[u8])| {
        let offset = u16::try_from(index * size).expect("a packet has no more than 65,535 octets");
        let more = index + 1 < parts.len();
        let mut frame = whole[..header].to_vec();
        if is_v6 {
            let [high, low] = (offset | u16::from(more)).to_be_bytes();
            let [a, b] = id.to_be_bytes();
            frame.extend([whole[20], 0, high, low, 0, 0, a, b]);
            frame[20] = number::FRAGMENT;
            frame[18..20].copy_from_slice(&length(part.len() + 8));
        } else {
            let field = (offset / 8) | (u16::from(more) << 13);
            frame[16..18].copy_from_slice(&length(part.len() + 20));
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            frame[20..22].copy_from_slice(&field.to_be_bytes());
            frame[24..26].fill(0);
            let sum = checksum::of(&frame[ETHERNET..]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend(*part);
        frame
    };
    parts.iter().enumerate().map(cut).collect()
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).expect("a fragment is short").to_be_bytes()
}
