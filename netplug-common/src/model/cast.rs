//! Who speaks, by which interface, and what.

use crate::decide::opening::{ACK, FIN, Moment, SYN, moment};
use crate::ip::{Ipv4, V4};
use crate::tuple::{Port, TCP, UDP};

/// A tuple of IPv4: the decisions are one source for both families.
pub type Tuple = crate::tuple::Tuple<V4>;

impl Tuple {
    /// By which tuples have an order.
    pub fn key(&self) -> [u64; 2] {
        bytemuck::cast(*self)
    }
}

/// The host end of the pod that calls.
pub const CLIENT: u32 = 1;
/// The one of the pod that is called, and is the services' endpoint at first.
pub const WEB: u32 = 2;
/// The one of the pod that may become their endpoint.
pub const OTHER: u32 = 3;
/// The uplink that the outside is reached by at first.
pub const UPLINK: u32 = 8;
/// The uplink that it may be reached by, too.
pub const SECOND_UPLINK: u32 = 9;

const CLIENT_ADDRESS: Ipv4 = Ipv4 { octets: [10, 0, 0, CLIENT as u8] };
const OUTSIDE: Ipv4 = Ipv4 { octets: [192, 0, 2, 1] };
/// A service's: no interface has it.
pub const SERVICE: Ipv4 = Ipv4 { octets: [10, 96, 0, 1] };
/// Another's.
pub const SECOND_SERVICE: Ipv4 = Ipv4 { octets: [10, 96, 0, 2] };

/// The port that the client speaks from.
const PORT: u16 = 40_000;
/// The one that the host's NAT takes instead, where that one is taken.
pub const SPARE: u16 = 50_000;
/// The port that pods and services listen on.
const LISTENED: u16 = 80;

/// The address of a pod.
pub fn address_of(interface: u32) -> Ipv4 {
    Ipv4 { octets: [10, 0, 0, interface as u8] }
}

/// The pod that has the address.
pub fn pod_at(address: Ipv4) -> Option<u32> {
    [CLIENT, WEB, OTHER].into_iter().find(|pod| address_of(*pod) == address)
}

/// Whether pods are not behind it.
pub fn is_uplink(interface: u32) -> bool {
    interface == UPLINK || interface == SECOND_UPLINK
}

/// Something that can be said at any time, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phrase {
    /// The interface that it enters by.
    pub by: u32,
    /// As it enters.
    pub tuple: Tuple,
    /// TCP's flags byte; 0 for UDP.
    pub flags: u8,
}

impl Phrase {
    /// Where in its connection it stands.
    pub fn moment(&self) -> Moment {
        moment(self.flags)
    }

    /// A datagram of the client's to port 80 of `to`.
    pub fn datagram(to: Ipv4) -> Self {
        Self { by: CLIENT, tuple: tuple(CLIENT_ADDRESS, PORT, to, LISTENED, UDP), flags: 0 }
    }

    /// A datagram of the client's to the outside.
    pub fn outwards() -> Self {
        Self::datagram(OUTSIDE)
    }

    /// A segment of the client's, under way.
    pub fn segment(to: Ipv4) -> Self {
        let tuple = tuple(CLIENT_ADDRESS, PORT, to, LISTENED, TCP);
        Self { by: CLIENT, tuple, flags: ACK }
    }

    /// What the pod `by` answers to what it got from the client.
    pub fn answered_by(self, by: u32) -> Self {
        let mut tuple = self.tuple.reversed();
        tuple.source = address_of(by);
        Self { by, tuple, ..self }
    }

    /// The same to the port that the host's NAT takes where the client's is taken.
    pub fn to_spare_port(self) -> Self {
        let tuple = Tuple { destination_port: Port::new(SPARE), ..self.tuple };
        Self { tuple, ..self }
    }

    /// The same as a SYN, or a SYN-ACK if it is an answer.
    pub fn opening(self) -> Self {
        let flags = if self.by == CLIENT { SYN } else { SYN | ACK };
        Self { flags, ..self }
    }

    /// The same as a SYN that answers nothing.
    pub fn calling(self) -> Self {
        Self { flags: SYN, ..self }
    }

    /// The same as a FIN.
    pub fn closing(self) -> Self {
        Self { flags: FIN | ACK, ..self }
    }

    /// The same, said by another, who lies about who he is.
    pub fn forged_by(self, by: u32) -> Self {
        Self { by, ..self }
    }
}

impl std::fmt::Display for Phrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match (self.tuple.protocol, self.moment()) {
            (UDP, _) => "datagram",
            (_, Moment::Opening) => "SYN",
            (_, Moment::Closing) => "FIN",
            (_, Moment::Underway) => "segment",
        };
        write!(f, "{} says {kind} {}", name(self.by), show(&self.tuple))
    }
}

/// The tuple as people write it.
pub fn show(tuple: &Tuple) -> String {
    let end = |address: Ipv4, port: Port| {
        let who = match (address, pod_at(address)) {
            (_, Some(pod)) => name(pod),
            (SERVICE, _) => "service",
            (SECOND_SERVICE, _) => "second service",
            _ => "outside",
        };
        format!("{who}:{}", port.get())
    };
    let (from, to) =
        (end(tuple.source, tuple.source_port), end(tuple.destination, tuple.destination_port));
    format!("{from} -> {to}")
}

/// An interface as people call it.
pub fn name(interface: u32) -> &'static str {
    match interface {
        CLIENT => "client",
        WEB => "web",
        OTHER => "other",
        UPLINK => "uplink",
        _ => "second uplink",
    }
}

fn tuple(source: Ipv4, from: u16, destination: Ipv4, to: u16, protocol: u8) -> Tuple {
    Tuple {
        source,
        destination,
        source_port: Port::new(from),
        destination_port: Port::new(to),
        protocol,
        _pad: [0; 3],
    }
}
