//! The four programs, each as the steps that a packet takes in it; and what the node's own sockets are told.

pub mod from_pod;
pub mod from_uplink;
pub mod socket;
pub mod to_pod;
pub mod to_uplink;

/// Bytes that every program wants to find linear: Ethernet, IPv6 and a TCP header.
const HEADERS: u32 = 74;
