//! A netlink socket that only listens.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

/// What the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// A message, with its header, and the type that this says.
    Message(u16, &'a [u8]),
    /// There was more than the socket has room for: anything may have been told.
    TooMuch,
}

/// The socket.
pub struct Listener {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    /// Whether messages were left out since the socket was last read to its end.
    has_lost: bool,
}

/// What is read without a break, so that a storm does not keep those from being answered who came before it.
const READS: usize = 4096;
/// The longest that the kernel makes (`NLMSG_GOODSIZE` and what users' buffers ask for, net/netlink/af_netlink.c).
const LONGEST: usize = 64 << 10;

impl Listener {
    /// Listens to the first 32 `groups` of a protocol, a bit each, in the calling thread's namespace.
    pub fn open(protocol: isize, groups: u32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        // SAFETY: what is registered owns the descriptor, and is the only one that closes it.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self { socket, buffer: Vec::with_capacity(LONGEST), has_lost: false })
    }

    /// Waits for something that `matters`, and reads what else there is: once the kernel has left something out, it tells nothing
    /// more until then.
    pub async fn changed(&mut self, mut matters: impl FnMut(Told<'_>) -> bool) -> io::Result<()> {
        let Self { socket, buffer, has_lost } = self;
        loop {
            let mut ready = socket.readable().await?;
            let mut is_change = false;
            for _ in 0..READS {
                buffer.clear();
                match ready.get_inner().recv(buffer, 0) {
                    Ok(_) => {
                        for told in messages(buffer) {
                            is_change |= matters(told);
                        }
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => *has_lost = true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        if std::mem::take(has_lost) {
                            is_change |= matters(Told::TooMuch);
                        }
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if is_change {
                return Ok(());
            }
        }
    }
}

/// The messages of a datagram (struct nlmsghdr, include/uapi/linux/netlink.h).
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Told<'_>> {
    const HEADER: usize = 16;
    std::iter::from_fn(move || {
        let [a, b, c, d, e, f] = *datagram.first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
        if length < HEADER {
            return None;
        }
        let message = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Told::Message(u16::from_ne_bytes([e, f]), message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32, kind: u16, octets: usize) -> Vec<u8> {
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(octets, 0);
        message
    }

    #[test]
    fn a_datagram_is_read_message_by_message_and_no_further_than_it_is_whole() {
        let datagram = [message(17, 7, 20), message(16, 8, 16), message(40, 9, 20)].concat();
        let kinds: Vec<_> = messages(&datagram).collect();
        let [Told::Message(7, first), Told::Message(8, second)] = kinds[..] else {
            panic!("{kinds:?}")
        };
        assert_eq!((first.len(), second.len()), (17, 16));
        for short in [&[][..], &[1, 2, 3], &message(3, 1, 32)] {
            assert_eq!(messages(short).count(), 0, "{short:?}");
        }
    }
}
