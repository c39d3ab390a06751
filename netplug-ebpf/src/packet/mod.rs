//! Reads a packet once: its tuple, and what the decisions ask besides.

pub mod ethernet;
mod ipv4;
pub mod ipv6;
pub mod neighbour;
pub mod quote;
pub mod rewrite;

use aya_ebpf::bindings::bpf_sock;
use netplug_common::decide::identity::Identity;
use netplug_common::decide::opening::{Moment, moment, sctp_flags};
use netplug_common::tuple::{Port, SCTP, TCP, Tuple, UDP};

use crate::maps::Maps;
use crate::skb::Skb;

/// How far a packet can be read and rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP right behind a header of the fixed length. Only these are learned.
    Plain,
    /// TCP or UDP behind a longer header, or in a first fragment; SCTP. Translated, but never learned.
    Optioned,
    /// An ICMP echo request or reply. Translated, but never learned.
    Echo,
    /// An ICMP error. What it quotes is read by `quote`; its own tuple has no ports.
    Error,
    /// A fragment that is not the first. The tuple has addresses and protocol.
    Later,
    /// Another protocol or message, and what is broken off. The tuple has addresses and protocol.
    Other,
}

/// A packet of one family.
#[derive(Clone, Copy)]
pub struct Packet<V: Maps> {
    /// Who speaks to whom.
    pub tuple: Tuple<V>,
    /// Offset of the transport header; see [`Packet::at`].
    pub transport: u16,
    /// Offset of a fragment's identification; 0 where it is whole.
    pub fragment: u16,
    /// How far it can be read.
    pub kind: Kind,
    /// TCP's flags byte, or what stands for it of SCTP; 0 for others.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// The first byte of an ICMP message; 0 for others, and for fragments but the first.
    pub icmp_type: u8,
}

/// What differs between the families in reading and writing.
pub trait Header: Maps {
    /// Reads a [`Kind::Plain`] packet; `None` for all others. The hit path's reader.
    fn plain(skb: Skb) -> Option<Packet<Self>>;
    /// Reads any packet of the family into `packet`; `false` where its header is broken off. Out of line, and in place: a
    /// reader needs much of the stack, and its callers' callees need it after.
    fn any(skb: Skb, packet: &mut Packet<Self>) -> bool;
    /// What routing goes by besides addresses, as `struct bpf_fib_lookup` has it: type of service, or traffic class and flow
    /// label.
    fn flow_information(skb: Skb) -> u32;
    /// Reads the IP header at `offset`, as far as an ICMP error quotes one: the tuple without ports, and where the transport
    /// header is. `None` where that is out of reach: a later fragment, extension headers.
    fn quoted(skb: Skb, offset: u32) -> Option<(Tuple<Self>, u32)>;
    /// Writes other addresses into the IP header at `offset`, and what of their delta concerns it.
    fn write_quoted_addresses(
        skb: Skb,
        offset: u32,
        to: &Tuple<Self>,
        address_delta: u32,
    ) -> Result<(), ()>;
    /// The address that a socket is connected to; of use only where it is.
    ///
    /// # Safety
    /// `socket` must be the kernel's.
    unsafe fn peer(socket: *const bpf_sock) -> Self::Address;
    /// Whether an ICMP message lies right behind the header. Asked of every packet that the host itself sends.
    fn is_icmp(skb: Skb) -> bool;
    /// What the header has besides addresses and length that a host leaves as it is, packet by packet.
    fn identification(skb: Skb) -> u32;
    /// Length of the L3 packet in bytes as its header tells it.
    fn length(skb: Skb) -> u32;
    /// Writes a flow's short way into a plain packet: one hop less, other addresses and ports.
    fn write_short_way(
        skb: Skb,
        packet: &Packet<Self>,
        way: &rewrite::ShortWay<Self>,
    ) -> Result<(), ()>;
    /// Writes another source and destination address, and what of their delta concerns the header.
    fn write_addresses(skb: Skb, to: &Tuple<Self>, address_delta: u32) -> Result<(), ()>;
    /// The same for a packet that has no checksum over a pseudo-header: a later fragment, SCTP.
    fn write_addresses_alone(skb: Skb, to: &Tuple<Self>, address_delta: u32) -> Result<(), ()>;
    /// The identification of a fragment that lies at `offset`, and the protocol that its header names.
    fn fragment(skb: Skb, offset: u16) -> Option<(u32, u8)>;
    /// Flags for `bpf_l4_csum_replace` when a pseudo-header changes.
    const PSEUDO_HEADER: u64;
    /// Whether the family's ICMP checksum covers a pseudo-header (RFC 4443 §2.3).
    const ICMP_HAS_PSEUDO_HEADER: bool;
}

impl<V: Header> Packet<V> {
    /// To be read into.
    #[inline(always)]
    pub fn blank() -> Self {
        Self {
            tuple: bytemuck::Zeroable::zeroed(),
            transport: 0,
            fragment: 0,
            kind: Kind::Other,
            tcp_flags: 0,
            hops: 0,
            icmp_type: 0,
        }
    }

    /// Where the segment stands in its connection's life; datagrams are always under way.
    #[inline(always)]
    pub fn moment(&self) -> Moment {
        moment(self.tcp_flags)
    }

    /// The offset of what lies `offset` bytes into the transport header.
    #[inline(always)]
    pub fn at(&self, offset: u32) -> u32 {
        u32::from(self.transport) + offset
    }

    /// Whether its tuple has what masquerade goes by: ports, or an echo's identifier.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.kind, Kind::Plain | Kind::Optioned | Kind::Echo)
    }

    /// Whether it could be learned from, were it under way.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }

    /// By what to recognise it when it leaves, with so many hops left. `None` where it is broken off.
    #[inline(always)]
    pub fn identity(&self, skb: Skb, hops: u8) -> Option<Identity> {
        let mut identity = Identity {
            length: Identity::length_word(V::length(skb), hops, self.tuple.protocol),
            id: V::identification(skb),
            ..Identity::default()
        };
        if self.tuple.protocol == TCP {
            let [sequence, acknowledgement] = skb.load::<[u32; 2]>(self.at(4))?;
            identity.first = sequence;
            identity.second = acknowledgement;
        } else if self.tuple.protocol == UDP {
            identity.first = u32::from(skb.load::<u16>(self.at(4))?);
            if let Some([second, third]) = skb.load::<[u32; 2]>(self.at(8)) {
                identity.second = second;
                identity.third = third;
            } else if let Some(second) = skb.load::<u32>(self.at(8)) {
                identity.second = second;
            }
        }
        Some(identity)
    }
}

impl<V: Header> Packet<V> {
    /// Reads what lies behind the IP header into a packet whose addresses and protocol are known. Leaves it a
    /// [`Kind::Other`] where that is broken off or not understood.
    #[inline(always)]
    fn read_transport(&mut self, skb: Skb, has_plain_header: bool) {
        let protocol = self.tuple.protocol;
        if protocol == TCP || protocol == UDP || protocol == SCTP {
            let Some([source, destination]) = skb.load::<[u16; 2]>(self.at(0)) else { return };
            if protocol != UDP {
                let offset = if protocol == TCP { 13 } else { 12 };
                let Some(flags) = skb.load::<u8>(self.at(offset)) else { return };
                self.tcp_flags = if protocol == TCP { flags } else { sctp_flags(flags) };
            }
            self.tuple.source_port = Port { octets: source.to_ne_bytes() };
            self.tuple.destination_port = Port { octets: destination.to_ne_bytes() };
            let is_plain = has_plain_header && self.fragment == 0 && protocol != SCTP;
            self.kind = if is_plain { Kind::Plain } else { Kind::Optioned };
        } else if protocol == V::ICMP {
            let Some([start, rest]) = skb.load::<[u32; 2]>(self.at(0)) else { return };
            let [message, ..] = start.to_ne_bytes();
            let [high, low, ..] = rest.to_ne_bytes();
            self.icmp_type = message;
            let identifier = Port { octets: [high, low] };
            if message == V::ECHO_REQUEST {
                self.tuple.source_port = identifier;
                self.kind = Kind::Echo;
            } else if message == V::ECHO_REPLY {
                self.tuple.destination_port = identifier;
                self.kind = Kind::Echo;
            } else if V::ERRORS.contains(&message) && self.fragment == 0 {
                self.kind = Kind::Error;
            }
        }
    }
}
