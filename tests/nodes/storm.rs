//! Twenty thousand flows, and nothing that stays where it is.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use netplug_common::counter::Counter;
use netplug_tests::amnesia::Table;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::OUTSIDE;
use netplug_tests::counters::Counters;
use netplug_tests::traffic::PATIENCE;
use rstest::rstest;
use rustix::event::epoll;

use crate::scene::Scene;
use crate::scene::Steering::Learn;

/// TCP: a descriptor at either end of each, of which a process may have 20,000.
const CONNECTIONS: usize = 8_000;
/// UDP: every client speaks with every server.
const CLIENTS: usize = 100;
const SERVERS: usize = 120;
const PORT: u16 = 7_000;

/// The outside: answers with what comes, on one thread.
struct Echo {
    listener: TcpListener,
    sockets: Vec<UdpSocket>,
}

impl Echo {
    fn at(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, PORT)).expect("nobody has the port");
        listener.set_nonblocking(true).expect("it is a socket");
        let socket = |number| {
            let socket = UdpSocket::bind((ip, PORT + number)).expect("nobody has the port");
            socket.set_nonblocking(true).expect("it is a socket");
            socket
        };
        Self { listener, sockets: (0..SERVERS as u16).map(socket).collect() }
    }

    fn run(&self, is_over: &AtomicBool) {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("Linux has it");
        let watch = |fd: std::os::fd::BorrowedFd<'_>, number: usize| {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&ready, fd, data, epoll::EventFlags::IN).expect("it is open");
        };
        for (number, socket) in self.sockets.iter().enumerate() {
            watch(socket.as_fd(), number);
        }
        watch(self.listener.as_fd(), SERVERS);
        let mut open: Vec<TcpStream> = Vec::new();
        let (mut events, mut buffer) = (Vec::with_capacity(256), [0; 64]);
        while !is_over.load(Ordering::SeqCst) {
            let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            events.clear();
            epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
                .expect("it is open");
            for event in &events {
                match event.data.u64() as usize {
                    number if number < SERVERS => {
                        let socket = &self.sockets[number];
                        // An error that came for an older answer is told here, too.
                        while let Ok((read, from)) = socket.recv_from(&mut buffer) {
                            socket.send_to(&buffer[..read], from).expect("there is a route");
                        }
                    }
                    SERVERS => {
                        while let Ok((stream, _)) = self.listener.accept() {
                            stream.set_nodelay(true).expect("it is TCP");
                            open.push(stream);
                            watch(open[open.len() - 1].as_fd(), SERVERS + open.len());
                        }
                    }
                    number => {
                        let stream = &mut open[number - SERVERS - 1];
                        if let Ok(read) = stream.read(&mut buffer) {
                            // A client that is gone says so itself.
                            let _ = stream.write_all(&buffer[..read]);
                        }
                    }
                }
            }
        }
    }
}

/// The pod.
struct Flows {
    streams: Vec<TcpStream>,
    sockets: Vec<UdpSocket>,
    to: IpAddr,
}

impl Flows {
    fn to(to: IpAddr) -> Self {
        let any: IpAddr = match to {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let stream = |_| {
            let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE)
                .expect("the outside listens");
            stream.set_nodelay(true).expect("it is TCP");
            stream.set_read_timeout(Some(4 * PATIENCE)).expect("it is a socket");
            stream
        };
        let socket = |_| {
            let socket = UdpSocket::bind((any, 0)).expect("there is a port");
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("it is a socket");
            socket
        };
        Self {
            streams: (0..CONNECTIONS).map(stream).collect(),
            sockets: (0..CLIENTS).map(socket).collect(),
            to,
        }
    }

    /// Each flow carries a word of its own, there and back.
    fn all_ask(&mut self, round: usize) {
        for (number, stream) in self.streams.iter_mut().enumerate() {
            let (word, mut back) = (word(number, round), [0; 8]);
            let asked = stream.write_all(&word).and_then(|()| stream.read_exact(&mut back));
            asked.unwrap_or_else(|error| panic!("round {round}, connection {number}: {error}"));
            assert_eq!(back, word, "round {round}, connection {number}");
        }
        for (client, socket) in self.sockets.iter().enumerate() {
            for server in 0..SERVERS {
                let at = SocketAddr::new(self.to, PORT + server as u16);
                let word = word(datagrams(client, server), round);
                ask(socket, at, word).unwrap_or_else(|error| {
                    panic!("round {round}, from socket {client} to {at}: {error}")
                });
            }
        }
    }
}

/// A datagram may be lost, with the half that its answer comes by, but not again and again; and none is another's.
fn ask(socket: &UdpSocket, at: SocketAddr, word: [u8; 8]) -> std::io::Result<()> {
    let mut last = ErrorKind::TimedOut.into();
    for _ in 0..4 {
        socket.send_to(&word, at)?;
        let mut back = [0; 64];
        match socket.recv_from(&mut back) {
            Ok((8, from)) if from == at && back[..8] == word => return Ok(()),
            Ok((8, from)) if is_late(&back[..8], from, at, word) => {}
            Ok((read, from)) => panic!("{at} was asked, and {from} sent {:?}", &back[..read]),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether it answers an older word of the same socket's, to the server that it is from: that one was taken for lost.
fn is_late(back: &[u8], from: SocketAddr, at: SocketAddr, word: [u8; 8]) -> bool {
    let number = |word: &[u8]| word.try_into().map_or(u64::MAX, u64::from_be_bytes);
    let flow = |port: u16| usize::from(port - PORT);
    let (late, now) = (number(back), number(&word));
    let first = (now as u32 as usize) - flow(at.port());
    late < now && from.ip() == at.ip() && late as u32 as usize == first + flow(from.port())
}

/// The flow of a client's socket to a server.
fn datagrams(client: usize, server: usize) -> usize {
    CONNECTIONS + client * SERVERS + server
}

/// A word that says which flow and which round.
fn word(flow: usize, round: usize) -> [u8; 8] {
    ((round << 32 | flow) as u64).to_be_bytes()
}

/// A process has descriptors for one storm at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[rstest]
fn no_flow_breaks_and_no_octet_is_wrong(#[values(V4, V6)] ip: Family) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::steered(Learn);
    let (outside, to) = (scene.node.outside().namespace(), OUTSIDE.ip(ip));
    let echo = outside.enter(|| Echo::at(to));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| echo.run(&is_over));
        let result = catch_unwind(AssertUnwindSafe(|| weather(&scene, to)));
        is_over.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
    let counters = Counters::of(&scene.node);
    assert!(counters.get(Counter::Healed) > 1_000, "{counters:?}");
}

fn weather(scene: &Scene, to: IpAddr) {
    let mut flows = scene.client.namespace().enter(|| Flows::to(to));
    flows.all_ask(0);
    let mut seed = 0x2545_f491;
    // One half of a mapping at a time: all are whole again before the other goes.
    for (round, half) in [(1, Table::NatIn), (3, Table::NatOut)] {
        let is_over = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let storm = scope.spawn(move || {
                let node = scene.node.namespace();
                while !is_over.load(Ordering::SeqCst) {
                    Table::Flows.forget(node, 2, &mut seed);
                    half.forget(node, 2, &mut seed);
                    scene.reload_rules();
                    replace_programs(scene);
                }
                seed
            });
            let asked = catch_unwind(AssertUnwindSafe(|| flows.all_ask(round)));
            is_over.store(true, Ordering::SeqCst);
            seed = storm.join().unwrap_or_else(|panic| resume_unwind(panic));
            asked.unwrap_or_else(|panic| resume_unwind(panic));
        });
        flows.all_ask(round + 1);
    }
}

/// Has the programs replaced under way, as by another build's.
fn replace_programs(scene: &Scene) {
    scene.node.namespace().run("rm -f /run/netplug/loaded");
    scene.node.netplug("load");
}
