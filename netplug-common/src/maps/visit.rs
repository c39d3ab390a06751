//! VISITS4, VISITS6: the packets that are in the host's hands, by the hash that they carry there.
//! Shape    LRU hash, H(tuple as handed to the host) → Visit, 65,536 entries each
//! Writes   `from_pod` and `from_uplink`, on a miss
//! Reads    `to_pod` and `to_uplink`, on every packet that was not redirected
//! Ends     LRU; overwritten by the next visit under its hash
//! Missing  nothing is learned; the packet goes its way
//! Order    addresses and ports as on the wire
//! Units    noted_at in jiffies

use crate::decide::identity::Identity;
use crate::ip::IpVersion;
use crate::maps::plain_old_data;
use crate::tuple::Tuple;

/// The last visit under a hash.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit<V: IpVersion> {
    /// Digest of all the rest, so that a value overwritten while it is read is not believed.
    pub seal: u64,
    /// When the first of the present run of tries was noted.
    pub noted_at: u64,
    /// The tuple as the packet entered, before any translation of ours.
    pub entered: Tuple<V>,
    /// By what to recognise the packet when it leaves.
    pub identity: Identity,
    /// The interface that it entered by.
    pub entered_by: u32,
    /// How often in this run a packet of the flow was noted without being learned from.
    pub tries: u32,
    /// [`crate::maps::config::Config::epoch`] when the packet was handed to the host: what the host decides on the
    /// way belongs to this one, even if another begins before the packet leaves.
    pub epoch: u32,
}
plain_old_data!(Visit<V> { 16 + 16 + 20 + 12, 16 + 40 + 20 + 12 });

impl<V: IpVersion> Visit<V> {
    /// Whether it is whole, and of a packet that is recognised by `identity`.
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, identity: &Identity) -> bool {
        self.seal == self.digest() && self.identity == *identity
    }

    /// What [`Visit::seal`] must be.
    #[inline(always)]
    #[must_use]
    pub fn digest(&self) -> u64 {
        let identity = &self.identity;
        let mut digest = self.entered.tag() ^ u64::from(self.entered_by);
        digest = digest.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digest ^= u64::from(identity.length) << 32 | u64::from(identity.id);
        digest = digest.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digest ^= u64::from(identity.first) << 32 | u64::from(identity.second);
        digest.rotate_left(23) ^ u64::from(self.epoch) << 32 ^ u64::from(identity.third)
    }
}
