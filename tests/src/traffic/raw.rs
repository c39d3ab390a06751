//! Frames as they are, by packet sockets (packet(7)): what no stack would send.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, sendto,
    socket_with,
};

use crate::namespace::Namespace;

/// `struct sockaddr_ll` (include/uapi/linux/if_packet.h), as far as sending needs it.
#[repr(C)]
#[derive(Default)]
struct LinkLayer {
    family: u16,
    protocol: u16,
    ifindex: i32,
    rest: [u8; 12],
}

// SAFETY: it is laid out as the kernel has it, and lives through the call.
unsafe impl SocketAddrArg for LinkLayer {
    unsafe fn with_sockaddr<R>(
        &self,
        call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        call(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}

/// Sends `frame` by an interface of `from`.
pub fn send_frame(from: &Namespace, interface: &str, frame: &[u8]) -> io::Result<()> {
    from.enter(|| {
        let socket =
            socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let index = netdevice::name_to_index(&socket, interface)?;
        let to = LinkLayer {
            family: AddressFamily::PACKET.as_raw(),
            ifindex: i32::try_from(index).map_err(io::Error::other)?,
            ..LinkLayer::default()
        };
        sendto(&socket, frame, SendFlags::empty(), &to)?;
        Ok(())
    })
}

/// A packet socket on an interface that tells of each frame what its sender left to the device.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// A frame, and what is left to the device (`struct virtio_net_hdr`, include/uapi/linux/virtio_net.h).
#[derive(Debug, Clone)]
pub struct Offloaded {
    /// Where the sum is to begin, and where to go, if one is to be made (CHECKSUM_PARTIAL).
    pub checksum: Option<(usize, usize)>,
    /// Payload of each segment, if it is to be cut (GSO).
    pub segment: Option<u16>,
    /// From its Ethernet header on.
    pub frame: Vec<u8>,
}

impl Capture {
    /// Listens on an interface of `place`.
    pub fn on(place: &Namespace, interface: &str) -> io::Result<Self> {
        /// `ETH_P_ALL` (include/uapi/linux/if_ether.h).
        const ALL: u16 = 3;
        place.enter(|| {
            let socket =
                socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
            let on: libc::c_int = 1;
            // SAFETY: the descriptor is open, and the option is an int that is read.
            let failed = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_VNET_HDR,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if failed != 0 {
                return Err(io::Error::last_os_error());
            }
            let index = netdevice::name_to_index(&socket, interface)?;
            let at = LinkLayer {
                family: AddressFamily::PACKET.as_raw(),
                protocol: ALL.to_be(),
                ifindex: i32::try_from(index).map_err(io::Error::other)?,
                ..LinkLayer::default()
            };
            rustix::net::bind(&socket, &at)?;
            // All that a test sends waits until it is looked at.
            set_socket_recv_buffer_size_force(&socket, 8 << 20)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(super::PATIENCE))?;
            Ok(Self { socket })
        })
    }

    /// The next frame.
    pub fn next(&self) -> io::Result<Offloaded> {
        const HEADER: usize = 10;
        let mut buffer = vec![0; 70_000];
        let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
        let [flags, kind, ..] = buffer[..] else { return Err(io::ErrorKind::InvalidData.into()) };
        let word = |at: usize| u16::from_ne_bytes([buffer[at], buffer[at + 1]]);
        Ok(Offloaded {
            // `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
            checksum: (flags & 1 != 0).then(|| (usize::from(word(6)), usize::from(word(8)))),
            segment: (kind != 0).then(|| word(4)),
            frame: buffer[HEADER..length].to_vec(),
        })
    }
}
