//! ICMP echo, by raw sockets: no `ping` program, and the identifier is ours to choose.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_ip_ttl, set_ipv6_unicast_hops, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, recvfrom,
    send, sendto, socket_with,
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

/// Sends one echo request that may make `hops` hops, and waits for the error that says where they ended.
pub fn trace(
    from: &Namespace,
    to: IpAddr,
    identifier: u16,
    hops: u8,
    patience: Duration,
) -> io::Result<IpAddr> {
    from.enter(|| {
        let socket = match to {
            IpAddr::V4(_) => {
                let socket = raw(AddressFamily::INET, ipproto::ICMP)?;
                set_ip_ttl(&socket, hops.into())?;
                socket
            }
            IpAddr::V6(_) => {
                let socket = raw(AddressFamily::INET6, ipproto::ICMPV6)?;
                set_ipv6_unicast_hops(&socket, Some(hops))?;
                socket
            }
        };
        let request = request(to, identifier, 1, 8);
        sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(to, 0))?;
        let deadline = Instant::now() + patience;
        let mut packet = vec![0; 65_536];
        loop {
            let left =
                deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
            let received =
                uninterrupted(|| Ok(recvfrom(&socket, &mut packet[..], RecvFlags::empty())?));
            let (length, _, who) = received.map_err(|error| timed_out(error, "time exceeded"))?;
            let who = who.and_then(|who| SocketAddr::try_from(who).ok());
            if let Some(who) = who
                && quoted_identifier(to, &packet[..length]) == Some(identifier)
            {
                return Ok(who.ip());
            }
        }
    })
}

fn raw(family: AddressFamily, protocol: rustix::net::Protocol) -> io::Result<OwnedFd> {
    Ok(socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?)
}

/// The identifier of the echo request that a "time exceeded" quotes.
fn quoted_identifier(to: IpAddr, packet: &[u8]) -> Option<u16> {
    let (message, kind, quoted_header) = match to {
        IpAddr::V4(_) => (packet.get(usize::from(packet.first()? & 15) * 4..)?, 11, 20),
        IpAddr::V6(_) => (packet, 3, 40),
    };
    let echo = message.get(8 + quoted_header..)?;
    let identifier = u16::from_be_bytes([*echo.get(4)?, *echo.get(5)?]);
    (*message.first()? == kind).then_some(identifier)
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
