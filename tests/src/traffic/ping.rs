//! ICMP echo, by raw sockets: no `ping` program, and the identifier is ours to choose.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send,
    socket_with,
};

use super::{timed_out, uninterrupted};
use crate::namespace::Namespace;

/// An echo that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The identifier that it had.
    pub identifier: u16,
    /// Its place in the sequence.
    pub sequence: u16,
}

/// Sends one echo request with `size` octets of data and waits for the reply.
pub fn ping(
    from: &Namespace,
    to: IpAddr,
    identifier: u16,
    size: usize,
    patience: Duration,
) -> io::Result<Echo> {
    from.enter(|| {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
        connect(&socket, &SocketAddr::new(to, 0))?;
        let sequence = 1;
        send(&socket, &request(to, identifier, sequence, size), SendFlags::empty())?;
        let deadline = Instant::now() + patience;
        let mut packet = vec![0; 65_536];
        loop {
            let left =
                deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
            let received =
                uninterrupted(|| Ok(recv(&socket, &mut packet[..], RecvFlags::empty())?));
            let (length, _) = received.map_err(|error| timed_out(error, "echo reply"))?;
            if let Some(echo) = reply(to, &packet[..length])
                && echo == (Echo { identifier, sequence })
            {
                return Ok(echo);
            }
        }
    })
}

fn request(to: IpAddr, identifier: u16, sequence: u16, size: usize) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend((0..size).map(super::content));
    // For ICMPv6 the kernel writes it, as it covers addresses that we need not know.
    if to.is_ipv4() {
        let sum = crate::packet::checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Reads a reply; raw sockets of IPv4 give the IP header as well.
fn reply(from: IpAddr, packet: &[u8]) -> Option<Echo> {
    let (message, kind) = match from {
        IpAddr::V4(_) => (packet.get(usize::from(packet.first()? & 15) * 4..)?, 0),
        IpAddr::V6(_) => (packet, 129),
    };
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    (*message.first()? == kind).then_some(Echo { identifier: word(4)?, sequence: word(6)? })
}
