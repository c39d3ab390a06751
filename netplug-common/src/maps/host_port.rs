//! HOSTPORTS4, HOSTPORTS6: ports of the node that lead to a pod. LOCALS4, LOCALS6: the node's addresses, by which
//! HostPorts of any address are called.
//! Shape    HOSTPORTS: hash, HostPort → Target, 16,384 entries each. LOCALS: hash, address → (), 16,384 entries each
//! Writes   userspace: ADD and DEL, after the endpoint is registered and before it is forgotten; LOCALS also `netplug watch`, and
//!          whoever finds more uplinks than CONFIG names
//! Reads    `from_uplink` and `from_pod` on a miss, the socket hooks; only where CONFIG says that there are any
//! Ends     with DEL
//! Missing  the port is the host's. LOCALS: a process of the node that calls a HostPort of any address by this one finds the
//!          host's port
//! Order    addresses and ports as on the wire

use crate::ip::IpVersion;
use crate::maps::plain_old_data;
use crate::tuple::Port;

/// Where a caller knocks.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostPort<V: IpVersion> {
    /// The node's address; unspecified: any of its.
    pub address: V::Address,
    /// The port.
    pub port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero: keys are compared byte by byte.
    pub _pad: [u8; 5],
}
plain_old_data!(HostPort<V> { 12, 24 });

/// Who opens.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<V: IpVersion> {
    /// Digest of network, container and interface name, as in PORTS, by which DEL finds the entry.
    pub owner: [u8; 8],
    /// The pod.
    pub address: V::Address,
    /// Its port.
    pub port: Port,
    /// Always zero.
    pub _pad: [u8; 6],
}
plain_old_data!(Target<V> { 20, 32 });

/// What a socket of the node's was told that it speaks with. SOCKETS4, SOCKETS6.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer<V: IpVersion> {
    /// The socket's cookie (`bpf_get_socket_cookie`).
    pub cookie: [u8; 8],
    /// With whom it does.
    pub address: V::Address,
    /// By which port.
    pub port: Port,
    /// Always zero.
    pub _pad: [u8; 6],
}

plain_old_data!(Peer<V> { 20, 32 });

/// What the process asked for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<V: IpVersion> {
    /// The address.
    pub address: V::Address,
    /// The port.
    pub port: Port,
    /// Always zero.
    pub _pad: [u8; 6],
}
plain_old_data!(Asked<V> { 12, 24 });
