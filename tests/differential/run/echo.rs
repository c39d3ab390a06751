//! Echoes: by raw sockets, so that identifiers are the program's to choose, and that the asked one's end is seen as well.

use netplug_tests::cast::Family;
use netplug_tests::packet::checksum;
use rustix::event::PollFlags;

use super::{Run, content, verdict};
use crate::message::receive;
use crate::place::Way;
use crate::program::{Identifier, Source};
use crate::socket::{Kind, Socket, wait};

/// Length of an echo's own header (RFC 792, RFC 4443 §4.1).
const HEADER: usize = 8;

impl Run<'_> {
    pub(super) fn echo(&mut self, way: Way, identifier: Identifier, size: u32) {
        self.echo_within(way, identifier, size, None);
    }

    /// Sends an echo request that may make so many hops, and waits for the reply, or an error.
    pub(super) fn echo_within(
        &mut self,
        way: Way,
        identifier: Identifier,
        size: u32,
        hops: Option<u8>,
    ) {
        let identifier = match identifier {
            Identifier::OfProgram(which) => (2 * self.number).wrapping_add(which.into()),
            Identifier::Chosen(identifier) => identifier,
        };
        self.echoes += 1;
        let to = self.target(way, crate::program::Port::Closed).at;
        let server = way.to.is_somewhere().then(|| {
            let server = Socket::new(self.world.namespace(way.to), self.family, Kind::Icmp);
            server.bind((to.ip(), 0).into()).expect("root may listen to ICMP");
            server
        });
        let client = self.client(way, Source::Free, Kind::Icmp).expect("root may send ICMP");
        client.tell_headers();
        let is_whole = !way.takes_fragments();
        client.send_whole(is_whole);
        if let Some(hops) = hops {
            client.set_hops(hops);
        }
        client.connect((to.ip(), 0).into()).expect("there is a route");
        let data = content(usize::from(self.echoes) * 70_000, size);
        let request = request(self.family, identifier, self.echoes, data);
        // The checksum of ICMPv6 is the kernel's to write.
        let start = if self.family == Family::V4 { 0 } else { 4 };
        let is_as_sent = |quote: &[u8]| {
            quote.get(start..).is_some_and(|quote| request[start..].starts_with(quote))
        };
        let line = format!("echo of {size} octets");
        if let Err(error) = client.send(&request) {
            self.observed.note(format!("{line}: it cannot be sent: {error}"));
            self.note_errors(way, "it", &client, is_as_sent);
            return;
        }
        let reply = self.await_reply(&client, identifier, way);
        let asked = server.map(|server| self.request_at(&server, way, data));
        self.observed.note(match reply {
            Some((got, hops)) => {
                format!("{line}: {} come back, hops {hops:?}; {asked:?}", verdict(&got, data))
            }
            None => format!("{line}: nothing comes back; {asked:?}"),
        });
        self.note_errors(way, "it", &client, is_as_sent);
    }

    /// The data of the reply, and hops that it had left.
    fn await_reply(
        &self,
        client: &Socket,
        identifier: u16,
        way: Way,
    ) -> Option<(Vec<u8>, Option<i32>)> {
        loop {
            if wait([(client, PollFlags::IN)]) == [false] {
                return None;
            }
            let message = receive(client).ok()?;
            let hops = message.hops.filter(|_| !way.is_between_pods());
            let echo = Echo::read(self.family, false, message.data);
            if let Some(echo) = echo
                && (echo.identifier, echo.sequence) == (identifier, self.echoes)
            {
                return Some((echo.data, hops));
            }
        }
    }

    /// What the asked one got meanwhile, and from whom.
    fn request_at(&self, server: &Socket, way: Way, sent: &[u8]) -> Vec<String> {
        let messages = std::iter::from_fn(|| receive(server).ok());
        let requests = messages.filter_map(|message| {
            let from = message.from?;
            let echo = Echo::read(self.family, true, message.data)?;
            let is_this = echo.sequence == self.echoes && echo.data == sent;
            is_this.then(|| format!("asked by {}", self.seen(way, from, from)))
        });
        requests.collect()
    }
}

/// An echo request, or a reply.
struct Echo {
    identifier: u16,
    sequence: u16,
    data: Vec<u8>,
}

impl Echo {
    /// Raw sockets of IPv4 give the IP header as well.
    fn read(family: Family, is_request: bool, mut packet: Vec<u8>) -> Option<Self> {
        let (start, kinds) = match family {
            Family::V4 => (usize::from(packet.first()? & 15) * 4, [0, 8]),
            Family::V6 => (0, [129, 128]),
        };
        let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        let (identifier, sequence) = (word(start + 4)?, word(start + 6)?);
        if *packet.get(start)? != kinds[usize::from(is_request)] {
            return None;
        }
        let data = packet.split_off(start + HEADER);
        Some(Self { identifier, sequence, data })
    }
}

fn request(family: Family, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let kind = if family == Family::V4 { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(data);
    // For ICMPv6 the kernel writes it.
    if family == Family::V4 {
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}
