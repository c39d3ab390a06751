//! Packets that may not make enough hops: who says that they ended, and what the sender is told.

use rustix::event::PollFlags;

use super::{Run, content};
use crate::place::Way;
use crate::program::{Identifier, Port, Probe, Source};
use crate::socket::{Kind, wait};

/// How much data a probe carries.
const SIZE: u32 = 40;

impl Run<'_> {
    pub(super) fn trace(&mut self, way: Way, by: Probe, hops: u8) {
        self.observed.note(format!("{hops} hops by {by:?}"));
        match by {
            Probe::Echo => self.echo_within(way, Identifier::OfProgram(0), SIZE, Some(hops)),
            Probe::Udp => self.trace_by_udp(way, hops),
            Probe::Tcp => self.trace_by_tcp(way, hops),
        }
    }

    fn trace_by_udp(&mut self, way: Way, hops: u8) {
        let to = self.target(way, Port::Closed).at;
        let client = self.client(way, Source::Free, Kind::Udp).expect("a port is free");
        client.set_hops(hops);
        client.connect(to).expect("there is a route");
        let data = content(0, SIZE);
        let sent = client.send(data).map_err(|error| error.to_string());
        wait([(&client, PollFlags::empty())]);
        self.observed.note(format!("{sent:?}"));
        self.note_errors(way, "it", &client, |quote| data.starts_with(quote));
    }

    fn trace_by_tcp(&mut self, way: Way, hops: u8) {
        let to = self.target(way, Port::Closed).at;
        let client = self.client(way, Source::Free, Kind::Tcp).expect("a port is free");
        client.set_hops(hops);
        let _ = client.connect(to);
        wait([(&client, PollFlags::OUT)]);
        let is_as_sent = |quote: &[u8]| quote.starts_with(&client.local().port().to_be_bytes());
        if self.note_errors(way, "it", &client, is_as_sent) {
            return;
        }
        let result = client.error().map_err(|error| error.to_string());
        self.observed.note(format!("{result:?}"));
    }
}
