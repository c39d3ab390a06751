//! NAT_OUT4/6 and NAT_IN4/6: the two halves of a mapping. NAT_STATE: what the search for ports remembers, IPv4 first.
//! Shape    hash, Tuple → Mapping, 131,072 entries each. NAT_OUT is keyed by the tuple as a pod sends it,
//!          NAT_IN by the answers' tuple as it arrives from outside
//! Writes   `to_uplink` and `from_uplink`; each writes the half it finds missing
//! Reads    `to_uplink` and `from_uplink`, on the miss path; `netplug nat`
//! Ends     past `expires_at` it counts no more, and a new one may take its place; once a day those that have ended are
//!          removed, and where the map is full at once, and then those that carry no data
//! Missing  one half is written again from the other. Both: the same port is chosen again, if it is still free
//! Order    addresses and ports as on the wire
//! Units    expires_at in jiffies, the low 32 bits

use bytemuck::{Pod, Zeroable};

use crate::ip::IpVersion;
use crate::maps::plain_old_data;
use crate::tuple::Port;

/// Kind: the packet is translated to `address` and `port`.
pub const TRANSLATED: u8 = 1;
/// Kind: the packet belongs to a connection that came in from outside, and goes as it is.
pub const IDENTITY: u8 = 2;
/// Kind, in NAT_IN only: answers with this tuple are the host's own affair, or its NAT's. Keeps masquerade from the port.
pub const HOST: u8 = 3;

/// Kind: the packet is translated for a HostPort, whatever address the uplink has. In NAT_IN by the tuple as the caller sends
/// it, in NAT_OUT by the tuple as the pod answers.
pub const HOST_PORT: u8 = 4;
/// Kind, in NAT_IN only: what NAT_OUT has of a HostPort's flow once more, by the tuple as the pod gets it.
pub const SPARE: u8 = 5;

/// Kind: a connection of the node's own whose port a pod had already, when a process got it. It leaves by another.
pub const MOVED: u8 = 6;

/// Half a mapping. Its first eight bytes are compared and exchanged as one, so that an expired half's port gets one new
/// holder.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping<V: IpVersion> {
    /// From when on another flow may take the port, unless a packet has been seen by then.
    pub expires_at: u32,
    /// The port that goes with `address`.
    pub port: Port,
    /// [`TRANSLATED`], [`IDENTITY`], [`HOST`], [`HOST_PORT`], [`SPARE`] or [`MOVED`]; 0 while it changes hands.
    pub kind: u8,
    /// One of `decide::mapping_life::Stage`.
    pub stage: u8,
    /// In NAT_OUT the source that the packet gets, in NAT_IN the destination.
    pub address: V::Address,
}
plain_old_data!(Mapping<V> { 12, 24 });

/// What the search for a port remembers of a family.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct NatState {
    /// From when on NAT_IN may be rebuilt from NAT_OUT again: nanoseconds of the monotonic clock.
    pub rebuild_after: u64,
    /// From when on a full map may be swept again; a day later, any is.
    pub sweep_after: u64,
    /// Whether there was ever a [`MOVED`] one: else nothing of the host's own is looked up.
    pub moved: u64,
    /// Whether there was ever one by a privileged port: else what comes and goes by those is the host's own.
    pub privileged: u64,
    /// Mappings that the last sweep removed.
    pub removed: u64,
    /// Frames that were kept in HELD so far; of the first family only.
    pub held: u64,
    /// No mapping was ever given a candidate beyond this one, so none need be looked for there.
    pub deepest: u64,
}
