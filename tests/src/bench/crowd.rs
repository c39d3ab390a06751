//! More flows under way than the flow cache has room for.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use super::engine::Lane;
use super::rows::Row;
use super::{Pace, race};
use crate::cast::Family;
use crate::network::Network;
use crate::node::Node;
use crate::packet::checksum;
use crate::pod::Pod;

/// What is done, and what the figures count.
pub const WORK: &str = "pod → pod, UDP, 500,000 flows in turn, ns per packet";

/// Flows: each port of the sender's with each of the receiver's.
const SENDERS: u16 = 62_500;
const FIRST_SENDER: u16 = 1_024;
const RECEIVERS: u16 = 8;
const FIRST_RECEIVER: u16 = 700;
const FLOWS: u32 = SENDERS as u32 * RECEIVERS as u32;
/// Datagrams under way at a time.
const BATCH: u16 = 25;
/// Turns at the most: each takes seconds, since what the cache knows ages while others have theirs.
const MOST_ROUNDS: usize = 7;
/// How long the cache is filled before the race: until it has no room.
const WARM_UP: Duration = Duration::from_secs(12);

/// Two pods of a node.
struct Place {
    _node: Node,
    client: Pod,
    server: Pod,
}

impl Place {
    /// What the host tracks is not what is measured, and a machine's conntrack may have less room: neither lane has it.
    fn new(network: Network) -> Self {
        let node = Node::with(network);
        let (client, server) = (node.add_pod("client"), node.add_pod("server"));
        let last = FIRST_RECEIVER + 2 * RECEIVERS - 1;
        node.namespace().feed(
            "nft -f -",
            &format!(
                "table inet untracked {{\nchain everything {{\ntype filter hook prerouting priority raw\n\
                 udp dport {FIRST_RECEIVER}-{last} notrack\n}}\n}}\n"
            ),
        );
        Self { _node: node, client, server }
    }
}

/// One datagram of each flow after the other, for ever.
struct Crowd {
    name: &'static str,
    sender: OwnedFd,
    receivers: Vec<UdpSocket>,
    to: SocketAddr,
    addresses: u64,
    first_receiver: u16,
    next_sender: u16,
    next_receiver: u16,
    ages: bool,
}

impl Crowd {
    fn new(
        name: &'static str,
        place: &Place,
        family: Family,
        first_receiver: u16,
        ages: bool,
    ) -> io::Result<Self> {
        let to = place.server.at(family, 0);
        let sender = place.client.namespace().enter(|| raw_udp(family))?;
        let bind = |number| {
            let at = place.server.at(family, first_receiver + number);
            let socket = place.server.namespace().enter(|| UdpSocket::bind(at))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            io::Result::Ok(socket)
        };
        let receivers = (0..RECEIVERS).map(bind).collect::<io::Result<_>>()?;
        let addresses = sum_of(to.ip()) + sum_of(place.client.at(family, 0).ip());
        Ok(Self {
            name,
            sender,
            receivers,
            to,
            addresses,
            first_receiver,
            next_sender: 0,
            next_receiver: 0,
            ages,
        })
    }

    fn batch(&mut self) -> io::Result<()> {
        let Some(receiver) = self.receivers.get(usize::from(self.next_receiver)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        for sender in self.next_sender..self.next_sender + BATCH {
            let datagram = datagram(
                FIRST_SENDER + sender,
                self.first_receiver + self.next_receiver,
                self.addresses,
            );
            sendto(&self.sender, &datagram, SendFlags::empty(), &self.to)?;
        }
        let mut buffer = [0; 64];
        for _ in 0..BATCH {
            receiver.recv(&mut buffer)?;
        }
        self.next_sender += BATCH;
        if self.next_sender == SENDERS {
            self.next_sender = 0;
            self.next_receiver = (self.next_receiver + 1) % RECEIVERS;
        }
        Ok(())
    }
}

impl Lane for Crowd {
    fn name(&self) -> &str {
        self.name
    }

    /// What the cache knows has aged while others had their turn.
    fn prepare(&mut self) -> io::Result<()> {
        if self.ages {
            (0..FLOWS / u32::from(BATCH)).try_for_each(|_| self.batch())?;
        }
        Ok(())
    }

    fn run(&mut self, end: Instant) -> io::Result<u64> {
        let mut units = 0;
        while Instant::now() < end {
            self.batch()?;
            units += u64::from(BATCH);
        }
        Ok(units)
    }
}

/// A socket that sends UDP headers as they are (raw(7)).
fn raw_udp(family: Family) -> io::Result<OwnedFd> {
    let version = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    Ok(socket_with(version, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::UDP))?)
}

/// Octets of a datagram: eight of header (RFC 768), sixteen of data.
const LENGTH: u16 = 24;

/// A datagram whose checksum is right where `addresses` is the sum of the pseudo-header's addresses.
fn datagram(from: u16, to: u16, addresses: u64) -> [u8; LENGTH as usize] {
    let mut octets = [7; LENGTH as usize];
    octets[..2].copy_from_slice(&from.to_be_bytes());
    octets[2..4].copy_from_slice(&to.to_be_bytes());
    octets[4..6].copy_from_slice(&LENGTH.to_be_bytes());
    octets[6..8].fill(0);
    let sum = addresses + u64::from(LENGTH) + 17 + checksum::sum(&octets);
    // A sum of 0 would stand for none.
    let checksum = checksum::finish(sum);
    let checksum = if checksum == 0 { u16::MAX } else { checksum };
    octets[6..8].copy_from_slice(&checksum.to_be_bytes());
    octets
}

fn sum_of(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => checksum::sum(&address.octets()),
        IpAddr::V6(address) => checksum::sum(&address.octets()),
    }
}

/// Learning beside `always`, which never learns.
pub fn row(family: Family, pace: Pace) -> io::Result<Row> {
    let always = Place::new(Network::netplug().with("steering", "always"));
    let learning = Place::new(Network::netplug());
    let (first, second) = (FIRST_RECEIVER, FIRST_RECEIVER + RECEIVERS);
    let mut learn = Crowd::new("learn", &learning, family, first, true)?;
    learn.run(Instant::now() + WARM_UP)?;
    let mut lanes: [Box<dyn Lane>; 3] = [
        Box::new(Crowd::new("always", &always, family, first, false)?),
        Box::new(Crowd::new("always again", &always, family, second, false)?),
        Box::new(learn),
    ];
    let rounds = pace.rounds.min(MOST_ROUNDS);
    Ok(Row { work: WORK, lanes: race(&mut lanes, Pace { rounds, ..pace })? })
}
