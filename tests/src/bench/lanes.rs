//! Kinds of work. Both ends of each are held by one thread, so the whole way of a packet, both stacks included, is
//! on that thread's CPU, and nothing waits for a wake-up.

use std::io;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::Lane;
use crate::namespace::Namespace;

/// Datagrams under way at a time: far from what a socket's buffer holds.
const BATCH: u64 = 32;

/// Small UDP datagrams, one way. A unit is a datagram.
pub struct Datagrams {
    name: String,
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Datagrams {
    /// From `client` to `to`, which must lead to `at` in `server`. One request and one answer go first, so that the
    /// flow is an established one in anybody's eyes.
    pub fn new(
        name: &str,
        client: &Namespace,
        server: &Namespace,
        to: SocketAddr,
        at: SocketAddr,
    ) -> io::Result<Self> {
        let patience = Some(Duration::from_secs(2));
        let receiver = server.enter(|| UdpSocket::bind(at))?;
        let sender = client.enter(|| {
            let any: SocketAddr =
                if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            io::Result::Ok(socket)
        })?;
        receiver.set_read_timeout(patience)?;
        sender.set_read_timeout(patience)?;
        let mut buffer = [0; 64];
        // Ten, so that each direction has more than one packet to be learned from.
        for _ in 0..10 {
            sender.send(b"question")?;
            let (_, client) = receiver.recv_from(&mut buffer)?;
            receiver.send_to(b"answer", client)?;
            sender.recv(&mut buffer)?;
        }
        Ok(Self { name: name.into(), sender, receiver })
    }
}

impl Lane for Datagrams {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, end: Instant) -> io::Result<u64> {
        let mut buffer = [0; 64];
        let mut units = 0;
        while Instant::now() < end {
            for _ in 0..BATCH {
                self.sender.send(&[7; 16])?;
            }
            for _ in 0..BATCH {
                self.receiver.recv(&mut buffer)?;
            }
            units += BATCH;
        }
        Ok(units)
    }
}

/// One UDP request and its answer at a time. A unit is both.
pub struct Requests(Datagrams);

impl Requests {
    /// As [`Datagrams::new`].
    pub fn new(
        name: &str,
        client: &Namespace,
        server: &Namespace,
        to: SocketAddr,
        at: SocketAddr,
    ) -> io::Result<Self> {
        Datagrams::new(name, client, server, to, at).map(Self)
    }
}

impl Lane for Requests {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn run(&mut self, end: Instant) -> io::Result<u64> {
        let Datagrams { sender, receiver, .. } = &self.0;
        let mut buffer = [0; 64];
        let mut units = 0;
        while Instant::now() < end {
            sender.send(b"question")?;
            let (_, client) = receiver.recv_from(&mut buffer)?;
            receiver.send_to(b"answer", client)?;
            sender.recv(&mut buffer)?;
            units += 1;
        }
        Ok(units)
    }
}

/// TCP connections: connect, one request, one answer, close. A unit is a connection.
pub struct Connections<'n> {
    name: String,
    client: &'n Namespace,
    listener: TcpListener,
    to: SocketAddr,
}

impl<'n> Connections<'n> {
    /// From `client` to `to`, which must lead to `at` in `server`.
    pub fn new(
        name: &str,
        client: &'n Namespace,
        server: &Namespace,
        to: SocketAddr,
        at: SocketAddr,
    ) -> io::Result<Self> {
        let listener = server.enter(|| TcpListener::bind(at))?;
        Ok(Self { name: name.into(), client, listener, to })
    }

    fn connection(&self) -> io::Result<()> {
        let mut buffer = [0; 8];
        let mut client = TcpStream::connect_timeout(&self.to, Duration::from_secs(2))?;
        let (mut server, _) = self.listener.accept()?;
        client.write_all(b"question")?;
        server.read_exact(&mut buffer)?;
        server.write_all(b"answer..")?;
        client.read_exact(&mut buffer)?;
        // The server first: its side keeps the TIME_WAIT, and the client's ports are free again at once.
        drop(server);
        drop(client);
        Ok(())
    }
}

impl Lane for Connections<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, end: Instant) -> io::Result<u64> {
        // The race's thread belongs to no namespace of its own, so each lane takes it to its client's.
        self.client.join_for_good();
        let mut units = 0;
        while Instant::now() < end {
            self.connection()?;
            units += 1;
        }
        Ok(units)
    }
}
