//! CONFIG: what userspace tells the programs, and the epoch.
//! Shape    array of one
//! Writes   userspace; the epoch only ever grows
//! Reads    every program, on every packet (an array of one is read in place, without a call)
//! Ends     with `netplug unload`
//! Missing  cannot be
//! Order    addresses, ports of ranges: see each field
//! Units    times in jiffies

use bytemuck::{Pod, Zeroable};

use crate::decide::mapping_life::Lifetimes;
use crate::decide::port_choice::{FIRST_UNPRIVILEGED, NODE_PORTS, PortRange, PortRanges};
use crate::ip::{IpVersion, Ipv4, Ipv6, V4};
use crate::tuple::Port;

/// `steering`: only the first packets of a flow visit.
pub const STEERING_LEARN: u32 = 0;
/// `steering`: every packet visits.
pub const STEERING_ALWAYS: u32 = 1;
/// `steering`: connections between pod addresses of this node never visit.
pub const STEERING_DIRECT: u32 = 2;

/// Flag: masquerade is on.
pub const MASQUERADE: u32 = 1;
/// Flag: conntrack in this namespace is liberal enough for TCP to be learned.
pub const LEARN_TCP: u32 = 2;
/// Flag: pods' packets to 169.254.0.0/16 are masqueraded, too.
pub const MASQUERADE_LINK_LOCAL4: u32 = 4;
/// Flag: pods' packets to fe80::/10 are masqueraded, too.
pub const MASQUERADE_LINK_LOCAL6: u32 = 8;

/// Whether `flags` have pods' packets to the family's link-local addresses masqueraded.
#[inline(always)]
#[must_use]
pub fn masquerades_link_local<V: IpVersion>(flags: u32) -> bool {
    let is_v4 = V::ADDRESS_FAMILY == V4::ADDRESS_FAMILY;
    flags & if is_v4 { MASQUERADE_LINK_LOCAL4 } else { MASQUERADE_LINK_LOCAL6 } != 0
}

/// Flag: there are HostPorts.
pub const HOST_PORTS: u32 = 16;
/// Flag: some are among the host's ephemeral ports.
pub const EPHEMERAL_HOST_PORTS: u32 = 32;

/// Addresses of uplinks of which the host's own traffic is recognised at once; others are only slower.
pub const FAST_ADDRESSES: usize = 4;

/// The settings of the datapath.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// Key of the hash that packets carry through the host; random for each load.
    pub hash_key: u64,
    /// Age at which an entry asks the host again, in jiffies.
    pub revisit_jiffies: u64,
    /// Jiffies in a second (CONFIG_HZ of the running kernel).
    pub jiffies_per_second: u64,
    /// Cookie of the node's network namespace (`SO_NETNS_COOKIE`), by which socket hooks know the node's processes.
    pub netns_cookie: u64,
    /// Entries of another epoch are void.
    pub epoch: u32,
    /// One of `STEERING_*`.
    pub steering: u32,
    /// [`MASQUERADE`], [`LEARN_TCP`], [`MASQUERADE_LINK_LOCAL4`], [`MASQUERADE_LINK_LOCAL6`], [`HOST_PORTS`],
    /// [`EPHEMERAL_HOST_PORTS`].
    pub flags: u32,
    /// Entries of each FLOWS map.
    pub flow_entries: u32,
    /// Always zero.
    pub _pad: [u8; 4],
    /// What the programs write into the control block of a packet that is done with, so that an uplink that it passes after, above or
    /// below, leaves it alone: redirected by `from_*`, addressed by `from_uplink`, changed by `to_uplink`. Random for each
    /// load, and never zero.
    pub marker: u32,
    /// The host's ephemeral ports (`ip_local_port_range`), inclusive: those that have been so ever since the first ADD told of them, and
    /// are no pod's therefore.
    pub local_ports: PortRange,
    /// The ports that masquerade may take.
    pub masquerade_ports: PortRanges,
    /// How long a mapping holds its port.
    pub lifetimes: Lifetimes,
    /// The first addresses of uplinks; unused ones are unspecified.
    pub uplinks4: [Ipv4; FAST_ADDRESSES],
    /// The same for IPv6.
    pub uplinks6: [Ipv6; FAST_ADDRESSES],
}
const _: () = assert!(size_of::<Config>().is_multiple_of(8));

impl Config {
    /// Whether a port of the node that needs no privilege may be one by which a pod is masqueraded: those that masquerade may take, and those that it
    /// might before the host's ephemeral ports became others.
    #[inline(always)]
    #[must_use]
    pub const fn may_be_pods(&self, port: Port) -> bool {
        let port = port.get();
        port >= FIRST_UNPRIVILEGED && !self.local_ports.contains(port) && !NODE_PORTS.contains(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However often the host's ephemeral ports become others.
        #[test]
        fn whatever_masquerade_took_may_be_pods(
            ranges in prop::collection::vec((1024u16.., 1024u16..), 1..4),
            port in any::<u16>(),
        ) {
            let mut config = Config::zeroed();
            config.local_ports = PortRange::EMPTY;
            let mut was_taken = false;
            for (first, last) in ranges {
                let local = PortRange { first: first.min(last), last: first.max(last) };
                config.local_ports = local.within(config.local_ports);
                let mut taken = [NODE_PORTS, local];
                taken.sort_by_key(|range| range.first);
                was_taken |= PortRanges::without(&taken).contains(port);
                prop_assert!(!was_taken || config.may_be_pods(Port::new(port)));
            }
        }
    }
}
