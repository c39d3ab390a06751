//! The maps: one file for each contract. All are pinned under `/sys/fs/bpf/netplug/v<LAYOUT>/` by their name.
//!
//! | map | kind | written by → read by |
//! |---|---|---|
//! | CONFIG | array\[1\] | userspace → all |
//! | PORTS | hash | userspace → `from_pod`, `to_pod`, on the miss path |
//! | ENDPOINTS4/6 | hash | userspace → miss paths |
//! | UPLINKS | hash | userspace → uplink programs |
//! | NON_MASQ4/6 | LPM trie | userspace → `to_uplink` |
//! | FLOWS4/6 | LRU hash | leave → enter |
//! | FLOW_STATE | array\[2\] | leave → enter |
//! | VISITS4/6 | LRU hash | enter → leave |
//! | NAT_OUT4/6, NAT_IN4/6 | hash | uplink programs |
//! | HOSTPORTS4/6, LOCALS4/6 | hash | userspace → `from_*`, socket hooks |
//! | SOCKETS4/6 | LRU hash | socket hooks |
//! | FRAGMENTS4/6 | LRU hash | all → all, for fragments |
//! | HELD | array\[128\] | uplink programs |
//! | NAT_STATE | array\[2\] | uplink programs |
//! | COUNTERS | per-CPU array | all → userspace |
//!
//! Addresses, ports and MACs are byte arrays as on the wire; every other number is in the machine's order.

pub mod config;
pub mod counters;
pub mod endpoint;
pub mod flow;
pub mod fragment;
pub mod host_port;
pub mod nat;
pub mod port;
pub mod uplink;
pub mod visit;

/// Version of everything in this folder: part of the pin path, so that programs and maps of two layouts never
/// meet. Any change to a type below makes it one more.
pub const LAYOUT: u32 = 1;

/// Default entries of each FLOWS map; the setting `flowCache`.
pub const FLOWS: u32 = 262_144;
/// Entries of each VISITS map: visits under way plus those that never came out.
pub const VISITS: u32 = 65_536;
/// Entries of each NAT_OUT and NAT_IN map.
pub const MAPPINGS: u32 = 131_072;
/// Entries of each FRAGMENTS map: datagrams in fragments under way.
pub const FRAGMENTS: u32 = 8_192;
/// Entries of HELD: fragments that came before the first of their datagram.
pub const HELD: u32 = 128;
/// Entries of each HOSTPORTS map.
pub const HOST_PORTS: u32 = 16_384;
/// Entries of each LOCALS map: addresses of the node.
pub const LOCALS: u32 = 16_384;
/// Entries of each SOCKETS map: sockets of the node's processes that call HostPorts.
pub const SOCKETS: u32 = 65_536;
/// Entries of PORTS: endpoints of a node.
pub const PORTS: u32 = 4_096;
/// Entries of each ENDPOINTS map: pod addresses of a node.
pub const ENDPOINTS: u32 = 8_192;
/// Entries of UPLINKS.
pub const UPLINKS: u32 = 64;
/// Entries of each NON_MASQ map.
pub const NON_MASQUERADE: u32 = 2_048;

/// Implements the markers that say a map type is plain bytes without gaps.
macro_rules! plain_old_data {
    ($type:ident<V> { $v4:expr, $v6:expr }) => {
        // SAFETY: `repr(C)`, every field is Zeroable.
        unsafe impl<V: $crate::ip::IpVersion> bytemuck::Zeroable for $type<V> {}
        // SAFETY: `repr(C)`, every field is Pod, and the assertions show the size of both families to be the sum of
        // the fields' sizes, so there is no padding.
        unsafe impl<V: $crate::ip::IpVersion> bytemuck::Pod for $type<V> {}
        const _: () = assert!(size_of::<$type<$crate::ip::V4>>() == $v4);
        const _: () = assert!(size_of::<$type<$crate::ip::V6>>() == $v6);
    };
}
pub(crate) use plain_old_data;

#[cfg(feature = "user")]
mod user {
    use crate::ip::IpVersion;

    // SAFETY: all are bytemuck::Pod, so any bytes are a value and there is no padding.
    unsafe impl aya::Pod for super::config::Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::counters::Count {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::port::PodPort {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::endpoint::EndpointEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::uplink::UplinkEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::nat::NatState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::ip::Ipv4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::ip::Ipv6 {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for crate::tuple::Tuple<V> {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for super::flow::Flow<V> {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for super::visit::Visit<V> {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for super::nat::Mapping<V> {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for super::host_port::HostPort<V> {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for super::host_port::Target<V> {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for super::fragment::Fragments<V> {}
    // SAFETY: as above.
    unsafe impl<V: IpVersion> aya::Pod for super::fragment::Fate<V> {}
}
