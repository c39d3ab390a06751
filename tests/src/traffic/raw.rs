//! Frames as they are, by packet sockets (packet(7)): what no stack would send.

use std::io;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, netdevice, sendto, socket_with,
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
