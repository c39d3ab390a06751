//! Sockets that never block, with the options that the standard library has no words for.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::c_int;
use netplug_tests::cast::Family;
use netplug_tests::namespace::Namespace;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, acceptfrom_with, bind, connect, getsockname,
    ipproto, listen, send, sendto, socket_with,
};

/// How long something that must come may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Udp,
    /// ICMP or ICMPv6, raw.
    Icmp,
}

/// A socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    family: Family,
}

impl Socket {
    /// A socket in `namespace`.
    pub fn new(namespace: &Namespace, family: Family, kind: Kind) -> Self {
        let domain = match family {
            Family::V4 => AddressFamily::INET,
            Family::V6 => AddressFamily::INET6,
        };
        let (kind, protocol) = match (kind, family) {
            (Kind::Tcp, _) => (SocketType::STREAM, None),
            (Kind::Udp, _) => (SocketType::DGRAM, None),
            (Kind::Icmp, Family::V4) => (SocketType::RAW, Some(ipproto::ICMP)),
            (Kind::Icmp, Family::V6) => (SocketType::RAW, Some(ipproto::ICMPV6)),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = namespace.enter(|| socket_with(domain, kind, flags, protocol));
        Self { fd: fd.expect("root may have any socket"), family }
    }

    /// A server of TCP at `at`.
    pub fn listening(namespace: &Namespace, at: SocketAddr) -> Self {
        let socket = Self::new(namespace, Family::of(at.ip()), Kind::Tcp);
        socket.reuse_address();
        socket.bind(at).expect("a program's own port is free");
        listen(&socket, 16).expect("a bound socket can listen");
        socket
    }

    /// Takes an address of its own.
    pub fn bind(&self, at: SocketAddr) -> io::Result<()> {
        Ok(bind(self, &at)?)
    }

    /// Connects, or begins to.
    pub fn connect(&self, to: SocketAddr) -> io::Result<()> {
        Ok(connect(self, &to)?)
    }

    /// The next connection, if there is one, and whom it is from.
    pub fn accept(&self) -> io::Result<(Self, SocketAddr)> {
        let (fd, from) = acceptfrom_with(self, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let from = from.and_then(|from| from.try_into().ok()).expect("TCP tells who connects");
        Ok((Self { fd, family: self.family }, from))
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        let local = getsockname(self).expect("a socket has a name");
        local.try_into().expect("it is one of the internet")
    }

    /// Sends to whom it is connected to.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        Ok(send(self, data, SendFlags::NOSIGNAL)?)
    }

    /// Sends all of `data` to whom it is connected to, in datagrams of `size`.
    pub fn send_in_parts(&self, data: &[u8], size: u16) -> io::Result<usize> {
        self.set(libc::SOL_UDP, libc::UDP_SEGMENT, size.into());
        let result = self.send(data);
        self.set(libc::SOL_UDP, libc::UDP_SEGMENT, 0);
        result
    }

    /// Sends a datagram to `to`.
    pub fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<usize> {
        Ok(sendto(self, data, SendFlags::NOSIGNAL, &to)?)
    }

    /// Its pending error, which is none afterwards.
    pub fn error(&self) -> io::Result<()> {
        match self.get(libc::SOL_SOCKET, libc::SO_ERROR) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Lets a port be bound whose last connection still lingers.
    pub fn reuse_address(&self) {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    }

    /// Has small writes go out at once.
    pub fn without_delay(&self) {
        self.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    }

    /// Ends by RST when it is dropped.
    pub fn reset_at_end(&self) {
        let linger = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(self, linger).expect("any socket can linger");
    }

    /// Tells of ICMP errors, also where it is not connected.
    pub fn tell_errors(&self) {
        self.by_family((libc::IP_RECVERR, 1), (libc::IPV6_RECVERR, 1));
    }

    /// Tells of each datagram's hops, class and options.
    pub fn tell_headers(&self) {
        self.by_family((libc::IP_RECVTTL, 1), (libc::IPV6_RECVHOPLIMIT, 1));
        self.by_family((libc::IP_RECVTOS, 1), (libc::IPV6_RECVTCLASS, 1));
        if self.family == Family::V4 {
            self.set(libc::IPPROTO_IP, libc::IP_RECVOPTS, 1);
        }
    }

    /// Whether it sends no fragments; if it may, then only what its kernel knows to be too long.
    pub fn send_whole(&self, is_whole: bool) {
        let (v4, v6) = if is_whole {
            (libc::IP_PMTUDISC_DO, libc::IPV6_PMTUDISC_DO)
        } else {
            (libc::IP_PMTUDISC_WANT, libc::IPV6_PMTUDISC_WANT)
        };
        self.by_family((libc::IP_MTU_DISCOVER, v4), (libc::IPV6_MTU_DISCOVER, v6));
    }

    /// How many hops its packets may make.
    pub fn set_hops(&self, hops: u8) {
        let hops = c_int::from(hops);
        self.by_family((libc::IP_TTL, hops), (libc::IPV6_UNICAST_HOPS, hops));
    }

    /// The traffic class of its packets.
    pub fn set_class(&self, class: u8) {
        let class = c_int::from(class);
        self.by_family((libc::IP_TOS, class), (libc::IPV6_TCLASS, class));
    }

    /// Sends UDP without a checksum.
    pub fn without_checksum(&self) {
        self.set(libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    }

    /// Has routers write down their addresses: room for three (RFC 791 §3.1).
    pub fn record_route(&self) {
        let mut option = [0; 16];
        (option[0], option[1], option[2]) = (7, 15, 4);
        self.set_bytes(libc::IPPROTO_IP, libc::IP_OPTIONS, &option);
    }

    /// What it believes that packets to its peer may be long.
    pub fn path_mtu(&self) -> c_int {
        match self.family {
            Family::V4 => self.get(libc::IPPROTO_IP, libc::IP_MTU),
            Family::V6 => self.get(libc::IPPROTO_IPV6, libc::IPV6_MTU),
        }
    }

    /// Whether TCP has nothing left to do for it: the peer has acknowledged the end.
    pub fn is_over(&self) -> bool {
        // The first octet of `struct tcp_info` is the state (include/uapi/linux/tcp.h).
        let mut state = [0u8; 1];
        self.get_bytes(libc::IPPROTO_TCP, libc::TCP_INFO, &mut state);
        const CLOSE: u8 = 7;
        state[0] == CLOSE
    }

    fn by_family(&self, v4: (c_int, c_int), v6: (c_int, c_int)) {
        match self.family {
            Family::V4 => self.set(libc::IPPROTO_IP, v4.0, v4.1),
            Family::V6 => self.set(libc::IPPROTO_IPV6, v6.0, v6.1),
        }
    }

    fn set(&self, level: c_int, name: c_int, value: c_int) {
        self.set_bytes(level, name, &value.to_ne_bytes());
    }

    fn set_bytes(&self, level: c_int, name: c_int, value: &[u8]) {
        let length = value.len() as libc::socklen_t;
        // SAFETY: `value` has `length` readable bytes, and is not kept.
        let result = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, name, value.as_ptr().cast(), length)
        };
        assert_eq!(result, 0, "option {level}/{name}: {}", io::Error::last_os_error());
    }

    fn get(&self, level: c_int, name: c_int) -> c_int {
        let mut value = [0; size_of::<c_int>()];
        self.get_bytes(level, name, &mut value);
        c_int::from_ne_bytes(value)
    }

    fn get_bytes(&self, level: c_int, name: c_int, value: &mut [u8]) {
        let mut length = value.len() as libc::socklen_t;
        // SAFETY: `value` has `length` writable bytes.
        let result = unsafe {
            let value = value.as_mut_ptr().cast();
            libc::getsockopt(self.fd.as_raw_fd(), level, name, value, &raw mut length)
        };
        assert_eq!(result, 0, "option {level}/{name}: {}", io::Error::last_os_error());
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one of `sockets` has something of what is asked of it, or an error; which ones.
pub fn wait<const N: usize>(sockets: [(&Socket, PollFlags); N]) -> [bool; N] {
    let mut fds = sockets.map(|(socket, flags)| PollFd::new(socket, flags));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.try_into().expect("patience is short");
        match poll(&mut fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                result.expect("sockets can be waited for");
                return fds.map(|fd| !fd.revents().is_empty());
            }
        }
    }
}
