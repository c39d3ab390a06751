//! The host's stack, as far as it decides: the guard, conntrack with its NAT, one firewall rule, routes.
//!
//! - A connection is two tuples, the caller's and the answers', as conntrack has it.
//! - A new one to a service goes to the service's endpoint of that moment, and stays there.
//! - One whose answers' tuple is taken gets another source port; where that is taken, too, it is dropped. What is closed is in
//!   nobody's way (`nf_nat_used_tuple_harder`, net/netfilter/nf_nat_core.c).
//! - TCP: picked up in the middle is a new connection (`nf_conntrack_tcp_loose`); a SYN on a closed one begins anew
//!   (`nf_conntrack_tcp_packet`, net/netfilter/nf_conntrack_proto_tcp.c); a FIN or a SYN-ACK of none is invalid, and dropped as
//!   kube-proxy does.

use std::hash::{Hash, Hasher};

use crate::decide::opening::{Moment, is_first};
use crate::ip::Ipv4;
use crate::model::cast::{
    OTHER, Phrase, SECOND_SERVICE, SECOND_UPLINK, SERVICE, SPARE, Tuple, UPLINK, WEB, address_of,
    pod_at,
};
use crate::tuple::Port;

/// What becomes of a packet that the host lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The interface that it leaves by.
    pub by: u32,
    /// As whose, and to whom.
    pub tuple: Tuple,
}

/// A way, or that it is dropped.
pub type Outcome = Option<Way>;

/// What people and their software set: the same on both nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Policy {
    /// The services' endpoint is not [`WEB`] but [`OTHER`].
    pub endpoint_moved: bool,
    /// The firewall drops what is for this address.
    pub drops: Option<Ipv4>,
    /// The outside is reached by the second uplink.
    pub route_moved: bool,
    /// How far [`WEB`] is taken away.
    pub deletion: Deletion,
}

/// How far DEL has come with [`WEB`] (`datapath/endpoints.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Deletion {
    /// Nobody deletes it.
    #[default]
    None,
    /// Its address is no endpoint's any more (or, if the rules have it so, the epoch has ended).
    First,
    /// Both.
    Second,
    /// And its interface is gone, whose index may become another pod's.
    Gone,
}

/// An entry of conntrack's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The caller's tuple, as it enters.
    pub original: Tuple,
    /// The answers', as they enter.
    pub reply: Tuple,
    /// A FIN was seen.
    pub is_closed: bool,
    /// Ticks since the last packet.
    pub silent: u8,
}

/// One node's conntrack.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Host {
    /// Sorted.
    pub connections: Vec<Connection>,
}

impl Host {
    /// Decides about a packet, and remembers its connection.
    pub fn decide(&mut self, policy: &Policy, phrase: &Phrase) -> Outcome {
        let (outcome, connection) = self.consider(policy, phrase);
        if let Some(connection) = connection {
            self.connections
                .retain(|known| !known.is_of(&phrase.tuple) && !known.is_of(&connection.reply));
            self.connections.push(connection);
            self.connections.sort_unstable_by_key(|known| known.original.key());
        }
        outcome
    }

    /// What it would decide, were the packet to come now.
    pub fn would(&self, policy: &Policy, phrase: &Phrase) -> Outcome {
        self.consider(policy, phrase).0
    }

    /// What becomes of a packet, and of its connection.
    fn consider(&self, policy: &Policy, phrase: &Phrase) -> (Outcome, Option<Connection>) {
        if pod_at(phrase.tuple.source) != Some(phrase.by) {
            return (None, None);
        }
        let begins_anew = |known: &&Connection| known.is_closed && is_first(phrase.flags);
        let known = self.connections.iter().find(|known| known.is_of(&phrase.tuple));
        let known = known.filter(|known| !begins_anew(known)).copied();
        let Some(mut connection) = known.or_else(|| self.begin(policy, phrase)) else {
            return (None, None);
        };
        connection.silent = 0;
        connection.is_closed |= phrase.moment() == Moment::Closing;
        let tuple = connection.carried(&phrase.tuple);
        let is_dropped = policy.drops == Some(tuple.destination);
        let by = route(policy, tuple.destination).filter(|_| !is_dropped);
        // What begins with a packet that is dropped has not begun.
        let connection = (known.is_some() || by.is_some()).then_some(connection);
        (by.map(|by| Way { by, tuple }), connection)
    }

    /// Whether it has a connection that the tuple is of.
    pub fn knows(&self, tuple: &Tuple) -> bool {
        self.connections.iter().any(|known| known.is_of(tuple))
    }

    /// A tick passes. What has been silent for as many as `timeout` says is forgotten, if it says any.
    pub fn pass_time(&mut self, timeout: impl Fn(&Connection) -> Option<u8>) {
        self.connections.retain_mut(|known| {
            let Some(timeout) = timeout(known) else { return true };
            known.silent += 1;
            known.silent < timeout
        });
    }

    fn begin(&self, policy: &Policy, phrase: &Phrase) -> Option<Connection> {
        if phrase.moment() != Moment::Underway && !is_first(phrase.flags) {
            return None;
        }
        let is_taken = |tuple: &Tuple| {
            self.connections.iter().any(|known| known.is_of(tuple) && !known.is_closed)
        };
        let mut left = phrase.tuple;
        if left.destination == SERVICE || left.destination == SECOND_SERVICE {
            left.destination = address_of(if policy.endpoint_moved { OTHER } else { WEB });
        }
        if is_taken(&left.reversed()) {
            left.source_port = Port::new(SPARE);
        }
        if is_taken(&left.reversed()) {
            return None;
        }
        let reply = left.reversed();
        Some(Connection { original: phrase.tuple, reply, is_closed: false, silent: 0 })
    }
}

// By words, not octet by octet.
impl Hash for Way {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.by, self.tuple.key()).hash(state);
    }
}

impl Hash for Connection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.original.key(), self.reply.key(), self.is_closed, self.silent).hash(state);
    }
}

impl Connection {
    fn is_of(&self, tuple: &Tuple) -> bool {
        self.original == *tuple || self.reply == *tuple
    }

    /// The tuple as it leaves, of one that enters.
    fn carried(&self, tuple: &Tuple) -> Tuple {
        if self.original == *tuple { self.reply.reversed() } else { self.original.reversed() }
    }
}

/// The interface that an address is reached by.
fn route(policy: &Policy, address: Ipv4) -> Option<u32> {
    if address == SERVICE || address == SECOND_SERVICE {
        return None;
    }
    let uplink = if policy.route_moved { SECOND_UPLINK } else { UPLINK };
    let by = pod_at(address).unwrap_or(uplink);
    (by != WEB || policy.deletion != Deletion::Gone).then_some(by)
}
