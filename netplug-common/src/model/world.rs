//! The small worlds: which phrases and actions there are.

use crate::ip::Ipv4;
use crate::model::cast::{CLIENT, OTHER, Phrase, SECOND_SERVICE, SERVICE, WEB, address_of};

/// What can be said and done.
#[derive(Debug, Clone)]
pub struct World {
    /// For people.
    pub name: &'static str,
    /// What can be said.
    pub phrases: Vec<Phrase>,
    /// Packets that can be in the host's hands at once. 0: each visit is over before anything else happens.
    pub hands: usize,
    /// The firewall rule that comes and goes: nothing for this address.
    pub drops: Option<Ipv4>,
    /// The services' endpoint becomes the other pod, and back.
    pub endpoint_moves: bool,
    /// The outside is reached by the other uplink, and back.
    pub route_moves: bool,
    /// Connections are taken from conntrack by hand, on both nodes.
    pub forgets: bool,
    /// The maps lose entries.
    pub evicts: bool,
    /// Epochs end.
    pub epochs: bool,
    /// A pod is taken away.
    pub deletes: bool,
    /// conntrack forgets closed connections that are silent.
    pub closed_expire: bool,
    /// The bridge floods: copies leave by another pod's port, too.
    pub floods: bool,
    /// The bits of the hash that packets carry.
    pub hash_mask: u32,
    /// The promise is held to more: answers to what the host let through are never treated as was decided before, be the flow
    /// translated or not, learned or not.
    pub are_answers_fresh: bool,
    /// A flow's packets look all the same. Otherwise no two in the host's hands do.
    pub alike: bool,
}

impl World {
    fn named(name: &'static str, phrases: Vec<Phrase>) -> Self {
        Self {
            name,
            phrases,
            hands: 0,
            drops: None,
            endpoint_moves: false,
            route_moves: false,
            forgets: false,
            evicts: false,
            epochs: false,
            deletes: false,
            closed_expire: false,
            are_answers_fresh: false,
            floods: false,
            hash_mask: u32::MAX,
            alike: false,
        }
    }

    /// Datagrams to a service and back, and all that changes on a node.
    pub fn service() -> Self {
        let call = Phrase::datagram(SERVICE);
        Self {
            drops: Some(address_of(CLIENT)),
            endpoint_moves: true,
            evicts: true,
            epochs: true,
            ..Self::named("service", vec![call, Phrase::datagram(address_of(WEB)).answered_by(WEB)])
        }
    }

    /// The same, one way, and packets are in the host's hands while it changes.
    pub fn hands() -> Self {
        Self {
            drops: Some(address_of(WEB)),
            endpoint_moves: true,
            evicts: true,
            epochs: true,
            hands: 2,
            ..Self::named("hands", vec![Phrase::datagram(SERVICE)])
        }
    }

    /// A connection to a service that opens, closes and opens again.
    pub fn connection() -> Self {
        let call = Phrase::segment(SERVICE);
        Self {
            endpoint_moves: true,
            evicts: true,
            ..Self::named("connection", vec![call, call.opening(), call.closing()])
        }
    }

    /// The same, and its packets are in the host's hands while others pass them.
    pub fn connection_in_hands() -> Self {
        Self { name: "connection in hands", hands: 2, evicts: false, ..Self::connection() }
    }

    /// Both sides of it.
    pub fn conversation() -> Self {
        let call = Phrase::segment(SERVICE);
        let answer = call.answered_by(WEB);
        let phrases = vec![call, call.opening(), answer, answer.opening(), answer.closing()];
        Self { endpoint_moves: true, ..Self::named("conversation", phrases) }
    }

    /// The client's port serves a direct flow and one to a service.
    pub fn port_reuse() -> Self {
        let direct = Phrase::datagram(address_of(WEB));
        let answer = direct.answered_by(WEB);
        let phrases = vec![direct, Phrase::datagram(SERVICE), answer, answer.to_spare_port()];
        Self::named("port reuse", phrases)
    }

    /// The same with connections: one closes, and the other takes its port.
    pub fn port_taken_over() -> Self {
        let direct = Phrase::segment(address_of(WEB));
        let call = Phrase::segment(SERVICE);
        let answer = direct.answered_by(WEB);
        let phrases = vec![
            direct,
            direct.opening(),
            direct.closing(),
            call,
            call.opening(),
            answer,
            answer.opening(),
        ];
        Self { evicts: true, ..Self::named("port taken over", phrases) }
    }

    /// The same with datagrams, whose entries are taken from conntrack; both are learned at the same instant.
    pub fn port_reuse_at_once() -> Self {
        let direct = Phrase::datagram(address_of(WEB));
        let phrases = vec![Phrase::datagram(SERVICE), direct.answered_by(WEB)];
        Self { forgets: true, hands: 2, ..Self::named("port reuse at once", phrases) }
    }

    /// The client's port calls two services of one pod.
    pub fn two_services() -> Self {
        let answer = Phrase::datagram(address_of(WEB)).answered_by(WEB);
        let phrases = vec![Phrase::datagram(SERVICE), Phrase::datagram(SECOND_SERVICE), answer];
        Self::named("two services", phrases)
    }

    /// All tuples share one hash.
    pub fn collisions() -> Self {
        let phrases = vec![Phrase::datagram(SERVICE), Phrase::datagram(address_of(OTHER))];
        Self { hands: 2, hash_mask: 0, ..Self::named("collisions", phrases) }
    }

    /// A bridge that floods, a route that moves, and a liar.
    pub fn places() -> Self {
        let call = Phrase::outwards();
        let phrases = vec![call, call.forged_by(OTHER), Phrase::datagram(address_of(WEB))];
        Self {
            route_moves: true,
            hands: 1,
            floods: true,
            epochs: true,
            ..Self::named("places", phrases)
        }
    }

    /// A pod is taken away while it is called.
    pub fn deletion() -> Self {
        let phrases = vec![Phrase::datagram(address_of(WEB))];
        Self { deletes: true, epochs: true, hands: 2, ..Self::named("deletion", phrases) }
    }

    /// Both pods open a connection to each other at the same time.
    pub fn simultaneous_open() -> Self {
        let call = Phrase::segment(address_of(WEB));
        let answer = call.answered_by(WEB);
        let phrases = vec![call, call.opening(), answer, answer.calling(), answer.closing()];
        Self {
            drops: Some(address_of(CLIENT)),
            evicts: true,
            ..Self::named("simultaneous open", phrases)
        }
    }

    /// Everything at once.
    pub fn large() -> Self {
        let direct = Phrase::segment(address_of(WEB));
        let call = Phrase::segment(SERVICE);
        let (answer, others) = (call.answered_by(WEB), call.answered_by(OTHER));
        let datagram = Phrase::datagram(address_of(WEB));
        let echo = datagram.answered_by(WEB);
        let phrases = vec![
            direct,
            direct.opening(),
            direct.closing(),
            call,
            call.opening(),
            call.closing(),
            answer,
            answer.opening(),
            answer.closing(),
            answer.to_spare_port(),
            others,
            others.opening(),
            datagram,
            Phrase::datagram(SERVICE),
            Phrase::datagram(SECOND_SERVICE),
            echo,
            echo.to_spare_port(),
            Phrase::outwards(),
            Phrase::outwards().forged_by(OTHER),
        ];
        Self {
            hands: 3,
            drops: Some(address_of(WEB)),
            endpoint_moves: true,
            route_moves: true,
            forgets: true,
            evicts: true,
            epochs: true,
            floods: true,
            hash_mask: 3,
            ..Self::named("large", phrases)
        }
    }
}
