//! PORTS: what lies behind a host end.
//! Shape    hash, ifindex of a host end, or of an adopted bridge's port → port, 4,096 entries
//! Writes   userspace: ADD (also for those that were there, once the host routes them) and DEL; `adopt`, `release` and `watch`
//! Reads    `from_pod` on a miss, `to_pod` when it learns
//! Ends     with DEL, before the veth is removed: interface indexes are reused. An adopted one's: when it has left the bridge
//! Missing  the interface is not ours: the packet goes on as if netplug were not there
//! Order    MACs as on the wire

use bytemuck::{Pod, Zeroable};

use crate::ip::{IpVersion, V4};

/// Flag: packets whose source is not the pod's own are dropped.
pub const SOURCE_GUARD: u32 = 1;

/// Flag: when this was written, the host did not route the pod's addresses of the family by its bridge. What it does not route
/// there is left to the bridge.
#[must_use]
pub const fn unrouted<V: IpVersion>() -> u32 {
    if V::ADDRESS_FAMILY == V4::ADDRESS_FAMILY { 2 } else { 4 }
}

/// Flag: a port of an adopted bridge. Who is behind it is not known, so neither owner nor pod nor its MAC is: what it sends is
/// brought before the host where that routes it back, and nothing else is done with it.
pub const ADOPTED: u32 = 8;

/// One endpoint, seen from its host end.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct PodPort {
    /// Digest of network, container and interface name, by which DEL finds the entry.
    pub owner: u64,
    /// Digest of the container: the addresses of its other interfaces are its own, too.
    pub pod: u64,
    /// The MAC that brings a packet up to the host's L3. An adopted port's own: the bridge's may be another with each port that
    /// comes or goes.
    pub gateway_mac: [u8; 6],
    /// MAC of the pod end.
    pub pod_mac: [u8; 6],
    /// Interface index of the bridge whose port the host end is; 0 where it is routed.
    pub bridge: u32,
    /// [`SOURCE_GUARD`], [`unrouted`], [`ADOPTED`].
    pub flags: u32,
    /// Always zero.
    pub _pad: [u8; 4],
}

const _: () = assert!(size_of::<PodPort>() == 40);
