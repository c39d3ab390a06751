//! ENDPOINTS4, ENDPOINTS6: the pod addresses of this node.
//! Shape    hash, address → endpoint, 8,192 entries each
//! Writes   userspace: ADD and DEL
//! Reads    miss paths: whose is this source, is that destination a pod of ours
//! Ends     with DEL, before the veth is removed
//! Missing  the address is not a pod's: not guarded for, not masqueraded
//! Order    MACs as on the wire

use bytemuck::{Pod, Zeroable};

/// Where a pod's address is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct EndpointEntry {
    /// Interface index of the host end.
    pub ifindex: u32,
    /// MAC of the pod end.
    pub mac: [u8; 6],
    /// Always zero.
    pub _pad: [u8; 2],
}
