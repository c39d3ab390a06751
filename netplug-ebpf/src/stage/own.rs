//! The host's own traffic, recognised by one comparison.
//!
//! Masquerade never takes a port of `ip_local_port_range`, so a packet to one of them at an uplink's address is
//! the host's, whatever else is known. (Of one that has been so all the while: others may be a pod's from before.)

use netplug_common::maps::config::{Config, FAST_ADDRESSES};

use crate::packet::{Header, Packet};

/// Whether the packet is for a socket of the host's.
#[inline(always)]
pub fn is_for_host<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    if !config.local_ports.contains(packet.tuple.destination_port.get()) {
        return false;
    }
    let addresses = V::fast_addresses(config);
    let mut at = 0;
    while at < FAST_ADDRESSES {
        if addresses[at] == packet.tuple.destination {
            return true;
        }
        at += 1;
    }
    false
}
