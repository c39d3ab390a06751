//! UPLINKS: where packets leave the node, and as whom.
//! Shape    hash, ifindex → uplink, 64 entries
//! Writes   userspace
//! Reads    `to_uplink` when a flow is masqueraded or learned, `from_uplink` when a mapping is to be healed
//! Ends     when the interface is no longer an uplink
//! Missing  nothing is masqueraded there
//! Order    addresses as on the wire

use bytemuck::{Pod, Zeroable};

use crate::ip::{Ipv4, Ipv6};

/// One uplink. An unspecified address: none of that family, and nothing of it is masqueraded.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct UplinkEntry {
    /// What IPv6 packets of pods get as their source.
    pub address6: Ipv6,
    /// What IPv4 packets of pods get as their source.
    pub address4: Ipv4,
    /// The smallest MTU that a route by it has of its own, in L3 bytes; 0: none has. (`bpf_fib_lookup` tells of locked ones only.)
    pub route_mtu: u32,
}
