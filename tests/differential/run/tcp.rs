//! Connections.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use super::{Run, content};
use crate::place::Way;
use crate::program::{End, Port, Source};
use crate::socket::{Kind, PATIENCE, Socket, wait};

/// A connection, by both its ends.
#[derive(Debug)]
pub struct Connection {
    way: Way,
    local: SocketAddr,
    ends: [Option<Socket>; 2],
    /// Whether an end has said that it will write no more.
    has_ended: [bool; 2],
    sent: usize,
}

impl Connection {
    fn end(&self, end: End) -> Option<&Socket> {
        self.ends[end as usize].as_ref()
    }

    fn has_ended(&self, end: End) -> bool {
        self.has_ended[end as usize]
    }

    /// Has an end write no more.
    fn finish(&mut self, end: End) -> io::Result<()> {
        self.has_ended[end as usize] = true;
        let Some(socket) = self.end(end) else { return Ok(()) };
        Ok(shutdown(socket, Shutdown::Write)?)
    }

    /// Ends both ends, `first` before the other, and waits until the other's end is acknowledged.
    fn end_both(&mut self, first: End) -> String {
        let _ = self.finish(first);
        let other = first.other();
        let heard = self.end(other).map_or_else(|| "gone".into(), read_end);
        let _ = self.finish(other);
        let is_over = self.end(other).is_none_or(comes_to_its_end);
        format!("{heard}, over: {is_over}")
    }
}

impl Run<'_> {
    pub(super) fn connect(&mut self, slot: u8, way: Way, to: Port, from: Source) {
        self.connections[usize::from(slot)] = None;
        let opened = self.try_connect(way, to, from);
        let line = match &opened {
            Ok((_, seen)) => format!("the server has a connection from {seen}"),
            Err(error) => error.clone(),
        };
        self.observed.note(format!("tcp {slot}: {line}"));
        self.connections[usize::from(slot)] = opened.ok().map(|(connection, _)| connection);
    }

    fn try_connect(
        &mut self,
        way: Way,
        to: Port,
        from: Source,
    ) -> Result<(Connection, String), String> {
        let target = self.target(way, to);
        if to == Port::Listening && way.to.is_somewhere() {
            self.listen(way, target.at);
        }
        let client = self.client(way, from, Kind::Tcp).map_err(|error| error.to_string())?;
        match client.connect(target.dial) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(format!("the client cannot: {error}"));
            }
            _ => {}
        }
        if wait([(&client, PollFlags::OUT)]) == [false] {
            return Err("no answer to the client".into());
        }
        let is_as_sent = |quote: &[u8]| quote.starts_with(&client.local().port().to_be_bytes());
        if self.note_errors(way, "the client", &client, is_as_sent) {
            // Whether it has given up as well depends on who held the socket when the error came.
            return Err("an error".into());
        }
        client.error().map_err(|error| format!("the client gets {error}"))?;
        let listener = self.listeners.iter().find(|(at, _)| *at == target.at);
        let Some((_, listener)) = listener else { return Err("SOMEBODY ELSE answers".into()) };
        wait([(listener, PollFlags::IN)]);
        let accepted = listener.accept();
        let (server, peer) = accepted.map_err(|error| format!("SOMEBODY ELSE answers: {error}"))?;
        server.without_delay();
        let local = client.local();
        let seen = self.seen(way, peer, local);
        let ends = [Some(client), Some(server)];
        Ok((Connection { way, local, ends, has_ended: [false; 2], sent: 0 }, seen))
    }

    fn listen(&mut self, way: Way, at: SocketAddr) {
        if self.listeners.iter().all(|(known, _)| *known != at) {
            let listener = Socket::listening(self.world.namespace(way.to), at);
            self.listeners.push((at, listener));
        }
    }

    pub(super) fn write(&mut self, slot: u8, by: End, size: u32) {
        let Some(connection) = &mut self.connections[usize::from(slot)] else { return };
        let data = content(connection.sent, size);
        connection.sent += data.len();
        let line = match (connection.end(by), connection.end(by.other())) {
            (None, _) => return,
            (Some(from), Some(to)) => transfer(from, to, data),
            (Some(from), None) => write_to_nobody(from, data),
        };
        let mtu = connection.end(by).map(Socket::path_mtu);
        self.observed.note(format!("tcp {slot}: {by:?} writes {size}: {line}, path MTU {mtu:?}"));
    }

    pub(super) fn half_close(&mut self, slot: u8, by: End) {
        let Some(connection) = &mut self.connections[usize::from(slot)] else { return };
        if connection.end(by).is_none() {
            return;
        }
        let result = connection.finish(by);
        let heard = connection.end(by.other()).map(read_end);
        self.observed.note(format!("tcp {slot}: {by:?} will write no more: {result:?}, {heard:?}"));
    }

    pub(super) fn close(&mut self, slot: u8, by: End) {
        let Some(connection) = &mut self.connections[usize::from(slot)] else { return };
        let Some(socket) = connection.ends[by as usize].take() else { return };
        let mut is_over = None;
        if connection.has_ended(by.other()) {
            // Its port is free as soon as the other end has acknowledged this.
            let _ = shutdown(&socket, Shutdown::Write);
            is_over = Some(comes_to_its_end(&socket));
        }
        connection.has_ended[by as usize] = true;
        drop(socket);
        let heard = connection.end(by.other()).map(read_end);
        self.observed.note(format!("tcp {slot}: {by:?} closes: {heard:?}, over: {is_over:?}"));
    }

    pub(super) fn reset(&mut self, slot: u8, by: End) {
        let Some(connection) = &mut self.connections[usize::from(slot)] else { return };
        let Some(socket) = connection.ends[by as usize].take() else { return };
        connection.has_ended[by as usize] = true;
        socket.reset_at_end();
        drop(socket);
        let heard = connection.end(by.other()).map(|other| {
            wait([(other, PollFlags::empty())]);
            other.error().map_err(|error| error.to_string())
        });
        self.observed.note(format!("tcp {slot}: {by:?} resets: {heard:?}"));
    }

    pub(super) fn reconnect(&mut self, slot: u8, first: End) {
        let Some(mut connection) = self.connections[usize::from(slot)].take() else { return };
        let line = connection.end_both(first);
        self.observed.note(format!("tcp {slot}: both close: {line}"));
        let (way, from) = (connection.way, Source::Chosen(connection.local.port()));
        drop(connection);
        self.connect(slot, way, Port::Listening, from);
    }
}

/// Writes all of `data` at one end while it is read at the other.
fn transfer(from: &Socket, to: &Socket, data: &[u8]) -> String {
    let (mut sent, mut got) = (0, Vec::with_capacity(data.len()));
    let mut part = vec![0; 65_536];
    loop {
        if sent < data.len() {
            match from.send(&data[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return format!("it cannot: {error}"),
            }
        }
        match recv(to, &mut part[..], RecvFlags::empty()) {
            Ok((_, 0)) => return format!("an end after {}", super::verdict(&got, data)),
            Ok((_, length)) => got.extend(&part[..length]),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(error) => return format!("{error} after {}", super::verdict(&got, data)),
        }
        if got.len() >= data.len() {
            return super::verdict(&got, data);
        }
        let is_ready = if sent < data.len() {
            wait([(from, PollFlags::OUT), (to, PollFlags::IN)])
        } else {
            [false, wait([(to, PollFlags::IN)]) == [true]]
        };
        if is_ready == [false; 2] {
            return format!("nothing after {}", super::verdict(&got, data));
        }
    }
}

/// Writes to an end that is gone, and waits for what that brings.
fn write_to_nobody(from: &Socket, data: &[u8]) -> String {
    if let Err(error) = from.send(data) {
        return format!("it cannot: {error}");
    }
    wait([(from, PollFlags::empty())]);
    format!("then {:?}", from.error().map_err(|error| error.to_string()))
}

/// Waits for the end of what the other end writes.
fn read_end(socket: &Socket) -> String {
    wait([(socket, PollFlags::IN)]);
    match recv(socket, &mut [0; 1][..], RecvFlags::empty()) {
        Ok((_, 0)) => "the other reads an end".into(),
        Ok(_) => "the other reads MORE THAN WAS SENT".into(),
        Err(error) => format!("the other gets {error}"),
    }
}

/// Waits until the peer has acknowledged that both ends are done. Nothing wakes a waiter for it.
fn comes_to_its_end(socket: &Socket) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !socket.is_over() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_micros(200));
    }
    true
}
