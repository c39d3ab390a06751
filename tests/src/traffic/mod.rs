//! Traffic: servers that say who they are and whom they see, clients that ask, and ping. TCP and UDP, IPv4 and
//! IPv6 through one interface.
//!
//! The protocol is a line of text: a server answers `ask`'s text with its own name, the client's address as it
//! saw it, and the text. Over TCP a few words make it do something else; see [`server`].

mod client;
mod ping;
mod raw;
mod server;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use client::{Dial, Talk};
pub use ping::{Echo, ping, trace};
pub use raw::{Capture, Offloaded, send_frame};
pub use server::Servers;

/// How long a client waits for its connection, and then for each answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long a client waits where the test expects that no answer comes.
pub const IMPATIENCE: Duration = Duration::from_millis(700);

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// As rules have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its name.
    pub server: String,
    /// The client's address as the server saw it.
    pub client: SocketAddr,
    /// The text that it was asked, or what became of a larger task.
    pub text: String,
}

impl Answer {
    /// The client's IP address as the server saw it.
    #[must_use]
    pub const fn client_ip(&self) -> IpAddr {
        self.client.ip()
    }

    fn write(server: &str, client: SocketAddr, text: &str) -> String {
        format!("{server}\t{client}\t{text}\n")
    }

    fn parse(line: &str) -> io::Result<Self> {
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, format!("not an answer: {line:?}"));
        let mut parts = line.trim_end_matches('\n').splitn(3, '\t');
        let mut next = || parts.next().ok_or_else(wrong);
        let (server, client, text) = (next()?, next()?, next()?);
        Ok(Self {
            server: server.into(),
            client: client.parse().map_err(|_| wrong())?,
            text: text.into(),
        })
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} saw {}", self.server, self.client)
    }
}

/// Octet `index` of the content of every bulk transfer: no two neighbouring pages are alike, so that data at the
/// wrong place is found.
const fn content(index: usize) -> u8 {
    ((index >> 12) ^ (index >> 7) ^ index.wrapping_mul(31)) as u8
}

/// The kernel's words for a time-out differ from call to call; ours do not.
fn timed_out(error: io::Error, what: &str) -> io::Error {
    let in_progress = Some(rustix::io::Errno::INPROGRESS.raw_os_error());
    let kinds = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
    if kinds.contains(&error.kind()) || error.raw_os_error() == in_progress {
        return io::Error::new(io::ErrorKind::TimedOut, format!("no {what} in time"));
    }
    error
}

/// Calls again what was interrupted: with a time limit set, Linux does not do so by itself.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
