//! The words that programs are written in.

use netplug_tests::cast::Family;
use serde::{Deserialize, Serialize};

use crate::place::Way;

/// What is done on both nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Whether by IPv6.
    pub v6: bool,
    /// One after the other.
    pub steps: Vec<Step>,
}

impl Program {
    /// The family of all its flows.
    pub const fn family(&self) -> Family {
        if self.v6 { Family::V6 } else { Family::V4 }
    }
}

/// How many connections, and how many UDP sockets, a program may have at a time.
pub const SLOTS: u8 = 3;

/// One step. A slot that has no connection has a step about it do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Opens a TCP connection; what the slot had is closed before.
    Connect { slot: u8, way: Way, to: Port, from: Source },
    /// One end writes, the other reads all of it.
    Write { slot: u8, by: End, size: u32 },
    /// One end will write no more.
    HalfClose { slot: u8, by: End },
    /// One end closes.
    Close { slot: u8, by: End },
    /// One end resets the connection.
    Reset { slot: u8, by: End },
    /// Both ends close, `first` before the other, and the client connects again from the same port at once.
    Reconnect { slot: u8, first: End },
    /// Opens a UDP socket; what the slot had is closed before.
    Open { slot: u8, way: Way, to: Port, from: Source, kind: Datagrams },
    /// One end sends a datagram; the client where the server does not know it yet.
    Send { slot: u8, by: End, size: u32 },
    /// The client has its kernel cut what it sends into datagrams of `size`, as late as may be (GSO).
    Burst { slot: u8, count: u8, size: u16 },
    /// From now on the client's datagrams may make so many hops.
    Limit { slot: u8, hops: u8 },
    /// The client's UDP socket is gone, while the server may still answer.
    Forget { slot: u8 },
    /// An echo request and its reply.
    Echo { way: Way, identifier: Identifier, size: u32 },
    /// A packet that may not make enough hops.
    Trace { way: Way, by: Probe, hops: u8 },
}

/// An end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Who spoke first.
    Client,
    /// Who was spoken to.
    Server,
}

impl End {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Which port of the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Port {
    /// One at which the server listens.
    Listening,
    /// One at which nobody does.
    Closed,
}

/// Which port of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// One that the client's kernel chooses.
    Free,
    /// This very one; the same for every client, and some that a node would not give away itself.
    Chosen(u16),
}

/// What a client's datagrams are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagrams {
    /// Whether they have a checksum; of IPv4, which can do without.
    pub checksum: bool,
    /// Whether they may not be fragmented.
    pub whole: bool,
    /// Whether they have routers write down their addresses, by an option of IPv4.
    pub record_route: bool,
    /// Traffic class.
    pub class: u8,
}

/// Which identifier an echo has: of a few, so that pods have the same, or anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identifier {
    /// This one of the program's own.
    OfProgram(u8),
    /// This very one.
    Chosen(u16),
}

/// What is sent to see how far it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// The first packet of a TCP connection.
    Tcp,
    /// A datagram to a closed port.
    Udp,
    /// An echo request.
    Echo,
}
