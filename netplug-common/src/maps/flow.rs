//! FLOWS4, FLOWS6: what the host made of a flow, by the tuple that entered.
//! Shape    LRU hash, Tuple → Flow, 262,144 entries each (setting `flowCache`)
//! Writes   `to_pod` and `to_uplink`, through `stage::learn`; `from_*` void it on an opening. With `direct`, `from_pod` enters
//!          connections, and `to_pod` holds the tuple of one that the host knows by a void entry (`entered_by` 0)
//! Reads    `from_pod` and `from_uplink`, once per packet; `netplug flows`
//! Ends     LRU; another epoch; `revisit_at`; another interface: each reads as a miss
//! Missing  the packet visits the host. Losing any entry at any time costs one visit, never correctness
//! Order    addresses, ports, MACs as on the wire
//! Units    revisit_at in jiffies (`bpf_jiffies64`)
//!
//! FLOW_STATE: how much of each is taken lately, IPv4 first; read and written where flows are learned.

use bytemuck::{Pod, Zeroable};

use crate::ip::IpVersion;
use crate::maps::plain_old_data;
use crate::tuple::Tuple;

/// Flag: leaves by an uplink, through the neighbour table.
pub const TO_UPLINK: u32 = 1;
/// Flag: the host left the tuple as it was.
pub const UNTOUCHED: u32 = 2;
/// Flag: untouched, between two ports of one bridge: no hop is spent and no header changes.
pub const SAME_BRIDGE: u32 = 4;
/// Flag: made by steering `direct` without a visit. The host knows nothing of it, so its openings and closings
/// take the short way too.
pub const DIRECT: u32 = 8;
/// Flag: a closing packet has been seen.
pub const CLOSED: u32 = 16;
/// Flag: datagrams that answer a flow which the host translated: that one asks the host first.
pub const ANSWERS: u32 = 32;
/// Flag: that one has been told to.
pub const TOLD: u32 = 64;
/// Flag: datagrams of which the host has not been asked since the entry was made.
pub const NEW: u32 = 128;

/// [`Flow::revisit_at`] of a TCP flow after its FIN: each packet asks, until the next opening.
pub const ALWAYS_DUE: u64 = 0;

/// What becomes of a packet with the key's tuple.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow<V: IpVersion> {
    /// [`Tuple::tag`] of the key. LRU elements are reused at once, also under a reader's hands: a reader takes
    /// what it needs, then looks here whether it was this flow's all the time. Stands first, since values are
    /// written from front to back.
    pub tag: u64,
    /// When the flow asks the host again.
    pub revisit_at: u64,
    /// The packet as it leaves.
    pub left: Tuple<V>,
    /// The interface that it entered by. Void from any other, unless it is [`DIRECT`] and the other is the same pod's.
    pub entered_by: u32,
    /// The interface that it leaves by.
    pub leaves_by: u32,
    /// [`crate::maps::config::Config::epoch`] when it was learned.
    pub epoch: u32,
    /// The flags of this module.
    pub flags: u32,
    /// The longest L3 packet that the leaving device takes, in bytes.
    pub mtu: u32,
    /// What the change of addresses does to a checksum that covers them.
    pub address_delta: u32,
    /// What the change of ports does to a checksum that covers them.
    pub port_delta: u32,
    /// The leaving frame's destination MAC; unused towards uplinks.
    pub destination_mac: [u8; 6],
    /// The leaving frame's source MAC; unused towards uplinks.
    pub source_mac: [u8; 6],
}
plain_old_data!(Flow<V> { 16 + 16 + 28 + 12, 16 + 40 + 28 + 12 });

/// What is remembered of a family's flows as a whole.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowState {
    /// As `decide::room` has it.
    pub taken_until: u64,
}
