//! What a socket receives: datagrams with what their headers said, and errors with who sent them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

use crate::socket::Socket;

/// A datagram, or an error.
#[derive(Debug, Default)]
pub struct Message {
    /// Its data; of an error, what it quotes of the data.
    pub data: Vec<u8>,
    /// Whom it is from; of an error, whom the quoted packet was for.
    pub from: Option<SocketAddr>,
    /// Hops that it had left.
    pub hops: Option<c_int>,
    /// Its traffic class.
    pub class: Option<c_int>,
    /// Its options, as they came.
    pub options: Vec<u8>,
    /// The error that it is.
    pub error: Option<Reported>,
}

/// What an error says.
#[derive(Debug)]
pub struct Reported {
    /// Who sent it; `None` is the socket's own kernel.
    pub by: Option<SocketAddr>,
    /// What programs are told.
    pub error: io::Error,
    /// ICMP type and code.
    pub kind: (u8, u8),
    /// The MTU, where it is about that.
    pub info: u32,
}

/// Room for control messages, aligned as they must be.
#[repr(C, align(8))]
struct Control([u8; 512]);

/// The next datagram.
pub fn receive(socket: &Socket) -> io::Result<Message> {
    next(socket, 0)
}

/// Errors that wait in the queue, first to last.
pub fn errors(socket: &Socket) -> Vec<Message> {
    std::iter::from_fn(|| next(socket, libc::MSG_ERRQUEUE).ok()).collect()
}

fn next(socket: &Socket, flags: c_int) -> io::Result<Message> {
    let mut data = vec![0u8; 66_000];
    let mut control = Control([0; 512]);
    // SAFETY: a storage of zeroes is valid.
    let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: a header of zeroes is valid: everything is empty.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of_val(&name) as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: all that the header points to is writable for as long as it says, and outlives the call.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    data.truncate(length);
    // SAFETY: the kernel wrote a name of the length that the header has, or none.
    let from = unsafe { address((&raw const name).cast(), header.msg_namelen as usize) };
    let mut message = Message { data, from, ..Message::default() };
    // SAFETY: the header is as the kernel left it, and CMSG_* stay inside what it wrote.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&raw const header);
        while !at.is_null() {
            let size = (*at).cmsg_len - (libc::CMSG_LEN(0) as usize);
            let octets = std::slice::from_raw_parts(libc::CMSG_DATA(at), size);
            message.take((*at).cmsg_level, (*at).cmsg_type, octets);
            at = libc::CMSG_NXTHDR(&raw const header, at);
        }
    }
    Ok(message)
}

impl Message {
    /// Reads a control message.
    fn take(&mut self, level: c_int, kind: c_int, octets: &[u8]) {
        let number = || octets.first_chunk().map(|octets| c_int::from_ne_bytes(*octets));
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                self.hops = number();
            }
            // One octet, unlike its twin.
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                self.class = octets.first().copied().map(c_int::from)
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => self.class = number(),
            (libc::IPPROTO_IP, libc::IP_RECVOPTS) => self.options = octets.to_vec(),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                self.error = Some(reported(octets));
            }
            _ => {}
        }
    }
}

/// Reads `struct sock_extended_err` and the address behind it.
fn reported(octets: &[u8]) -> Reported {
    let size = size_of::<libc::sock_extended_err>();
    assert!(octets.len() >= size, "the kernel gives all of it");
    // SAFETY: there are as many octets, and any are valid.
    let error: libc::sock_extended_err =
        unsafe { octets.as_ptr().cast::<libc::sock_extended_err>().read_unaligned() };
    // SAFETY: behind it is a name, or zeroes.
    let by = unsafe { address(octets.as_ptr().add(size), octets.len() - size) };
    let errno = c_int::try_from(error.ee_errno).expect("an errno is small");
    Reported {
        by: by.filter(|_| error.ee_origin != libc::SO_EE_ORIGIN_LOCAL),
        error: io::Error::from_raw_os_error(errno),
        kind: (error.ee_type, error.ee_code),
        info: error.ee_info,
    }
}

/// Reads a socket address.
///
/// # Safety
/// There are `length` readable octets at `name`.
unsafe fn address(name: *const u8, length: usize) -> Option<SocketAddr> {
    if length < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: as the caller says; each read is no longer than `length`.
    unsafe {
        match c_int::from(name.cast::<libc::sa_family_t>().read_unaligned()) {
            libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
                let name = name.cast::<libc::sockaddr_in>().read_unaligned();
                let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::new(ip.into(), u16::from_be(name.sin_port)))
            }
            libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
                let name = name.cast::<libc::sockaddr_in6>().read_unaligned();
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                Some(SocketAddr::new(ip.into(), u16::from_be(name.sin6_port)))
            }
            _ => None,
        }
    }
}
