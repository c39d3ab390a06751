//! Protocols of the transport layer, as people name them.

use netplug_common::tuple::{SCTP, TCP, UDP};

/// A protocol's name, or its number.
#[must_use]
pub fn name(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        TCP => "tcp".into(),
        UDP => "udp".into(),
        58 => "icmpv6".into(),
        SCTP => "sctp".into(),
        number => number.to_string(),
    }
}

/// The number of a protocol that has ports, whatever the case of its name.
#[must_use]
pub fn with_ports(name: &str) -> Option<u8> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Some(TCP),
        "udp" => Some(UDP),
        "sctp" => Some(SCTP),
        _ => None,
    }
}
