//! COUNTERS: how many packets went which way.
//! Shape    per-CPU array, number of a [`crate::counter::Counter`] → count
//! Writes   every program, for its own CPU only
//! Reads    `netplug counters`
//! Ends     with `netplug unload`
//! Missing  cannot be
//! Units    packets as the programs see them (a GSO packet is one), bytes with Ethernet headers

use bytemuck::{Pod, Zeroable};

/// One CPU's share of a counter.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}
