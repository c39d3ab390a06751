//! Datagrams.

use std::cell::Cell;
use std::net::SocketAddr;

use rustix::event::PollFlags;

use super::{Run, Target, content, verdict};
use crate::message::{Message, receive};
use crate::place::Way;
use crate::program::{Datagrams, End, Port, Source};
use crate::socket::{Kind, Socket, wait};

/// A client's socket, and what its server knows of it.
#[derive(Debug)]
pub struct Flow {
    way: Way,
    target: SocketAddr,
    kind: Datagrams,
    client: Option<Socket>,
    local: SocketAddr,
    /// The client's address as the server last saw it.
    seen: Cell<Option<SocketAddr>>,
    sent: usize,
}

impl Run<'_> {
    pub(super) fn open(&mut self, slot: u8, way: Way, to: Port, from: Source, kind: Datagrams) {
        self.flows[usize::from(slot)] = None;
        let Target { at, dial } = self.target(way, to);
        if to == Port::Listening && way.to.is_somewhere() {
            self.receive_at(way, at);
        }
        let client = match self.client(way, from, Kind::Udp) {
            Ok(client) => client,
            Err(error) => return self.observed.note(format!("udp {slot}: {error}")),
        };
        client.tell_headers();
        if !kind.checksum {
            client.without_checksum();
        }
        // Bridged datagrams pass no router that would write.
        if kind.record_route && !way.is_between_pods() {
            client.record_route();
        }
        client.set_class(kind.class);
        if let Err(error) = client.connect(dial) {
            return self.observed.note(format!("udp {slot}: {error}"));
        }
        let (local, client) = (client.local(), Some(client));
        let flow = Flow { way, target: at, kind, client, local, seen: Cell::new(None), sent: 0 };
        self.flows[usize::from(slot)] = Some(flow);
    }

    fn receive_at(&mut self, way: Way, at: SocketAddr) {
        if self.receivers.iter().all(|(known, _)| *known != at) {
            let receiver = Socket::new(self.world.namespace(way.to), self.family, Kind::Udp);
            receiver.tell_errors();
            receiver.tell_headers();
            receiver.bind(at).expect("a program's own port is free");
            self.receivers.push((at, receiver));
        }
    }

    pub(super) fn limit(&mut self, slot: u8, hops: u8) {
        if let Some(Flow { way, client: Some(client), .. }) = &self.flows[usize::from(slot)]
            && !way.is_between_pods()
        {
            client.set_hops(hops);
        }
    }

    pub(super) fn burst(&mut self, slot: u8, count: u8, size: u16) {
        let Some(flow) = self.flows[usize::from(slot)].take() else { return };
        let server = self.receivers.iter().find(|(at, _)| *at == flow.target);
        if let (Some(client), Some((_, server))) = (&flow.client, server) {
            send_whole(client, &flow);
            let data = content(flow.sent, u32::from(size) * u32::from(count));
            let line = match client.send_in_parts(data, size) {
                Ok(_) => self.received_in_parts(&flow, client, server, data.chunks(size.into())),
                Err(error) => format!("it cannot: {error}"),
            };
            self.observed.note(format!("udp {slot}: {count} of {size} at once: {line}"));
            self.note_errors(flow.way, "the client", client, |quote| data.starts_with(quote));
        }
        self.flows[usize::from(slot)] = Some(flow);
    }

    /// What the server got of a burst; the first that is not as it was sent ends it.
    fn received_in_parts<'d>(
        &self,
        flow: &Flow,
        client: &Socket,
        server: &Socket,
        parts: impl Iterator<Item = &'d [u8]>,
    ) -> String {
        let mut line = String::new();
        for (index, part) in parts.enumerate() {
            let [_, has_come] = wait([(client, PollFlags::empty()), (server, PollFlags::IN)]);
            let Some(message) = has_come.then(|| receive(server).ok()).flatten() else {
                return format!("nobody gets number {index}");
            };
            line = self.received(flow, &message, part);
            if message.data != part {
                return format!("number {index}: {line}");
            }
        }
        format!("all, the last: {line}")
    }

    pub(super) fn forget(&mut self, slot: u8) {
        if let Some(flow) = &mut self.flows[usize::from(slot)] {
            flow.client = None;
        }
    }

    pub(super) fn send(&mut self, slot: u8, by: End, size: u32) {
        let Some(mut flow) = self.flows[usize::from(slot)].take() else { return };
        let server = self.receivers.iter().position(|(at, _)| *at == flow.target);
        let server = server.map(|index| self.receivers.swap_remove(index).1);
        let data = content(flow.sent, size);
        flow.sent += data.len();
        let by = if flow.seen.get().is_none() { End::Client } else { by };
        match by {
            End::Client => self.ask(slot, &flow, server.as_ref(), data),
            End::Server => self.answer(slot, &flow, server.as_ref(), data),
        }
        self.receivers.extend(server.map(|server| (flow.target, server)));
        self.flows[usize::from(slot)] = Some(flow);
    }

    /// The client sends; the server gets it, or the client an error.
    fn ask(&mut self, slot: u8, flow: &Flow, server: Option<&Socket>, data: &[u8]) {
        let Some(client) = &flow.client else { return };
        send_whole(client, flow);
        let line = format!("udp {slot}: the client sends {}", data.len());
        if let Err(error) = client.send(data) {
            self.observed.note(format!("{line}: it cannot: {error}"));
            self.note_errors(flow.way, "the client", client, |quote| data.starts_with(quote));
            return;
        }
        let got = match server {
            Some(server) => {
                let [_, has_come] = wait([(client, PollFlags::empty()), (server, PollFlags::IN)]);
                has_come.then(|| receive(server).ok()).flatten()
            }
            None => {
                wait([(client, PollFlags::empty())]);
                None
            }
        };
        let line = match got {
            Some(message) => format!("{line}: {}", self.received(flow, &message, data)),
            None => format!("{line}: nobody gets it"),
        };
        self.observed.note(line);
        self.note_errors(flow.way, "the client", client, |quote| data.starts_with(quote));
    }

    /// What the server got of the client's, and from whom.
    fn received(&self, flow: &Flow, message: &Message, sent: &[u8]) -> String {
        let from = message.from.expect("a datagram is from somebody");
        let seen = self.seen(flow.way, from, flow.local);
        let known = flow.seen.replace(Some(from));
        let again = if known.is_none_or(|known| known == from) { "" } else { ", BY ANOTHER PORT" };
        format!(
            "the server gets {} from {seen}{again}{}",
            verdict(&message.data, sent),
            self.header(flow, message)
        )
    }

    /// The server sends to whom it last saw; the client gets it, or the server an error.
    fn answer(&mut self, slot: u8, flow: &Flow, server: Option<&Socket>, data: &[u8]) {
        let (Some(server), Some(seen)) = (server, flow.seen.get()) else { return };
        send_whole(server, flow);
        let line = format!("udp {slot}: the server sends {}", data.len());
        if let Err(error) = server.send_to(data, seen) {
            self.observed.note(format!("{line}: it cannot: {error}"));
            self.note_errors(flow.way, "the server", server, |quote| data.starts_with(quote));
            return;
        }
        let got = match &flow.client {
            Some(client) => {
                let [_, has_come] = wait([(server, PollFlags::empty()), (client, PollFlags::IN)]);
                has_come.then(|| receive(client).ok()).flatten()
            }
            None => {
                wait([(server, PollFlags::empty())]);
                None
            }
        };
        let line = match got {
            Some(message) => {
                let header = self.header(flow, &message);
                format!("{line}: the client gets {}{header}", verdict(&message.data, data))
            }
            None => format!("{line}: nobody gets it"),
        };
        self.observed.note(line);
        self.note_errors(flow.way, "the server", server, |quote| data.starts_with(quote));
    }

    /// What a datagram's header says. Between pods hops are left out, see [`Way::is_between_pods`].
    fn header(&self, flow: &Flow, message: &Message) -> String {
        let hops = message.hops.filter(|_| !flow.way.is_between_pods());
        let route = match message.options.as_slice() {
            [7, _, next, addresses @ ..] => {
                let count = usize::from(next / 4).saturating_sub(1);
                let name = |ip: &[u8; 4]| self.world.name((*ip).into(), self.number);
                let names = addresses.as_chunks().0.iter().take(count).map(name);
                format!(", by {}", names.collect::<Vec<_>>().join(" and "))
            }
            [] => String::new(),
            other => format!(", options {other:?}"),
        };
        format!(", hops {hops:?}, class {:?}{route}", message.class)
    }
}

/// Whether a flow's datagrams may be fragmented holds for both its ends.
fn send_whole(socket: &Socket, flow: &Flow) {
    let is_whole = flow.kind.whole || !flow.way.takes_fragments();
    socket.send_whole(is_whole);
}
