//! Carries a program out on one node. Both ends of every flow are in one hand, so that each step waits for what it must bring
//! about, and the next one finds the network quiet.

mod echo;
mod tcp;
mod trace;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::LazyLock;

use netplug_tests::cast::Family;

use crate::message::{self, Message};
use crate::observed::Observed;
use crate::place::{Place, Way};
use crate::program::{Port, Program, SLOTS, Source, Step};
use crate::socket::{Kind, Socket};
use crate::world::{HOST_PORT, World};

/// What a router's error of IPv6 quotes of a fragment's data: 1,280 octets but for two headers, its own, the fragment's and
/// UDP's (RFC 4443 §2.4).
const FULL_QUOTE: usize = 1_280 - 40 - 8 - 40 - 8 - 8;

/// Runs `program`, the `number`th, and tells what was observed.
pub fn on(world: &World, program: &Program, number: u16) -> Observed {
    let mut run = Run {
        world,
        family: program.family(),
        number,
        observed: Observed::default(),
        listeners: Vec::new(),
        receivers: Vec::new(),
        connections: Default::default(),
        flows: Default::default(),
        echoes: 0,
    };
    for step in &program.steps {
        run.step(step);
    }
    run.observed
}

/// A program under way.
struct Run<'w> {
    world: &'w World,
    family: Family,
    number: u16,
    observed: Observed,
    /// Servers of TCP and of UDP, each made when a flow first needs it.
    listeners: Vec<(SocketAddr, Socket)>,
    receivers: Vec<(SocketAddr, Socket)>,
    connections: [Option<tcp::Connection>; SLOTS as usize],
    flows: [Option<udp::Flow>; SLOTS as usize],
    echoes: u16,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Connect { slot, way, to, from } => self.connect(slot, way, to, from),
            Step::Write { slot, by, size } => self.write(slot, by, size),
            Step::HalfClose { slot, by } => self.half_close(slot, by),
            Step::Close { slot, by } => self.close(slot, by),
            Step::Reset { slot, by } => self.reset(slot, by),
            Step::Reconnect { slot, first } => self.reconnect(slot, first),
            Step::Open { slot, way, to, from, kind } => self.open(slot, way, to, from, kind),
            Step::Send { slot, by, size } => self.send(slot, by, size),
            Step::Burst { slot, count, size } => self.burst(slot, count, size),
            Step::Limit { slot, hops } => self.limit(slot, hops),
            Step::Forget { slot } => self.forget(slot),
            Step::Echo { way, identifier, size } => self.echo(way, identifier, size),
            Step::Trace { way, by, hops } => self.trace(way, by, hops),
        }
    }

    /// Where a server listens, or nobody does, and where a client speaks to it. Each program has ports of its own.
    fn target(&self, way: Way, port: Port) -> Target {
        let own = 6_000 + 2 * (self.number % 12_000);
        let port = match port {
            Port::Listening => own,
            Port::Closed => own + 1,
        };
        let at = SocketAddr::new(self.world.address(way.to, self.family, self.number), port);
        if !way.by_host_port {
            return Target { at, dial: at };
        }
        let (node, pod) = HOST_PORT[usize::from(way.to == Place::OtherPod)];
        let dial = SocketAddr::new(self.world.address(Place::Node, self.family, self.number), node);
        Target { at: SocketAddr::new(at.ip(), pod), dial }
    }

    /// A client's socket, with its address.
    fn client(&self, way: Way, from: Source, kind: Kind) -> io::Result<Socket> {
        let socket = Socket::new(self.world.namespace(way.from), self.family, kind);
        if kind == Kind::Tcp {
            socket.reuse_address();
            socket.without_delay();
        }
        socket.tell_errors();
        let port = match from {
            Source::Free => 0,
            Source::Chosen(port) => port,
        };
        let own = self.world.address(way.from, self.family, self.number);
        socket.bind(SocketAddr::new(own, port))?;
        Ok(socket)
    }

    /// Whom a server saw. Only where the node masquerades may the port be another than the client's.
    fn seen(&self, way: Way, from: SocketAddr, local: SocketAddr) -> String {
        let who = self.world.name(from.ip(), self.number);
        let has_its_port = way.may_change_ports() || from.port() == local.port();
        if has_its_port { who } else { format!("{who} by a port that is not its own") }
    }

    /// Notes what a socket has been told of; whether it was anything. `is_as_sent` judges what is quoted.
    fn note_errors(
        &mut self,
        way: Way,
        whose: &str,
        socket: &Socket,
        is_as_sent: impl Fn(&[u8]) -> bool,
    ) -> bool {
        let errors = message::errors(socket);
        for Message { data, error, .. } in &errors {
            let Some(error) = error else { continue };
            let by: String = match error.by {
                // Where the node wants a port that a pod's flow has, the kernel's NAT gives it another at LOCAL_OUT, counts
                // that as a translation of the destination, and shows errors as if they came from there.
                // (nf_nat_icmp_reply_translation in net/netfilter/nf_nat_proto.c)
                Some(_) if way.from == Place::Node => "somebody".into(),
                Some(by) => match self.world.name(by.ip(), self.number).as_str() {
                    // Once a node has been told of a narrow link, it may say so in place of the router there, by an
                    // address that depends on whether it finds out before or after it has masqueraded. netplug's short
                    // way asks the devices alone, and leaves the rest to that router.
                    "Gateway" | "Node" | "Outside" if error.info != 0 => "a router".into(),
                    name => name.into(),
                },
                None => "its own kernel".into(),
            };
            let (kind, code) = error.kind;
            let about = if is_as_sent(data) { "as sent" } else { "NOT as sent" };
            // Where conntrack has put fragments together before a router sees them, it quotes no fragment header, and
            // has room for more.
            let length = match data.len() {
                _ if self.family == Family::V6 && data.len() >= FULL_QUOTE => "as many".into(),
                length => length.to_string(),
            };
            self.observed.note(format!(
                "{whose} is told by {by}: {} ({kind}/{code}, {}), about {length} octets {about}",
                error.error, error.info,
            ));
        }
        !errors.is_empty()
    }
}

/// Where a server is, and where it is called.
#[derive(Clone, Copy)]
struct Target {
    at: SocketAddr,
    dial: SocketAddr,
}

/// The next `size` octets of a flow that has sent `offset`. No two parts of it are alike.
fn content(offset: usize, size: u32) -> &'static [u8] {
    const LENGTH: usize = 1 << 20;
    static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 1u64;
        let mut next = || {
            // Knuth's MMIX constants.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..LENGTH).map(|_| next()).collect()
    });
    let start = offset % (LENGTH / 2);
    &CONTENT[start..start + size as usize]
}

/// Whether data is what was sent.
fn verdict(got: &[u8], sent: &[u8]) -> String {
    let same = if got == sent { "as sent" } else { "NOT as sent" };
    format!("{} octets {same}", got.len())
}
