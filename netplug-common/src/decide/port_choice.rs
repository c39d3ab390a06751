//! Which port masquerade takes. Candidates come in a fixed order derived from the pod's address and port, so that a mapping
//! whose both halves were lost is most likely given its own port again, and that whom a socket speaks with sees it as everybody
//! else does, as by the kernel's NAT (RFC 4787, REQ-1): peers that tell one another of it count on that (STUN).

use bytemuck::{Pod, Zeroable};

use crate::tuple::{Port, SCTP, TCP, UDP};

/// Ports from `first` to `last`, both included; host order. Empty where `first` is above `last`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// A range that holds nothing.
    pub const EMPTY: Self = Self { first: 1, last: 0 };

    /// Whether `port` lies within.
    #[inline(always)]
    #[must_use]
    pub const fn contains(&self, port: u16) -> bool {
        port >= self.first && port <= self.last
    }

    /// What of it lies within `known`, too; all where nothing is known yet.
    #[must_use]
    pub fn within(self, known: Self) -> Self {
        if known == Self::EMPTY {
            return self;
        }
        Self { first: self.first.max(known.first), last: self.last.min(known.last) }
    }

    /// How many ports lie within.
    #[inline(always)]
    #[must_use]
    pub const fn count(&self) -> u32 {
        if self.first > self.last { 0 } else { self.last as u32 - self.first as u32 + 1 }
    }
}

/// The first port that needs no privilege.
pub const FIRST_UNPRIVILEGED: u16 = 1024;

/// The privileged ports, and the two kinds of them among which the kernel's NAT chooses: who was given one of a kind gets no other
/// (`nf_nat_l4proto_unique_tuple`, net/netfilter/nf_nat_core.c, Linux 6.12).
const PRIVILEGED: PortRange = PortRange { first: 1, last: FIRST_UNPRIVILEGED - 1 };
const LOWER: PortRange = PortRange { first: 1, last: 511 };
const UPPER: PortRange = PortRange { first: 600, last: FIRST_UNPRIVILEGED - 1 };

/// kube-apiserver's default `--service-node-port-range`.
pub const NODE_PORTS: PortRange = PortRange { first: 30_000, last: 32_767 };

/// How many candidates are tried before a flow is given up.
pub const CANDIDATES: u32 = 64;

/// Co-prime to every possible number of ports, so that stepping by it meets each port once.
const STRIDE: u32 = 65_537;

/// The ports that masquerade may take: up to four ranges, without overlap, in rising order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct PortRanges {
    /// The ranges; unused ones are empty.
    pub ranges: [PortRange; 4],
    /// Ports in all of them together.
    pub count: u32,
}

impl PortRanges {
    /// The unprivileged ports without those of `taken`, which must be in rising order and not overlap.
    /// At most three ranges can be left out; more are ignored, and left out of the result's end.
    #[must_use]
    pub fn without(taken: &[PortRange]) -> Self {
        let mut ranges = [PortRange::EMPTY; 4];
        let (mut used, mut count, mut next) = (0, 0, u32::from(FIRST_UNPRIVILEGED));
        let end = PortRange { first: u16::MAX, last: u16::MAX };
        for (index, out) in taken.iter().chain([&end]).enumerate() {
            let is_end = index == taken.len();
            let until = if is_end { 65_536 } else { u32::from(out.first) };
            if next < until && used < ranges.len() {
                let range = PortRange { first: next as u16, last: (until - 1) as u16 };
                count += range.count();
                ranges[used] = range;
                used += 1;
            }
            next = next.max(u32::from(out.last) + 1);
        }
        Self { ranges, count }
    }

    /// Whether masquerade may take `port`.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.ranges[0].contains(port)
            || self.ranges[1].contains(port)
            || self.ranges[2].contains(port)
            || self.ranges[3].contains(port)
    }

    /// Candidate number `index` for a flow whose own source port is `source_port` and whose sender hashes to
    /// `hash`; `None` where there are no ports at all. Candidate 0 is the flow's own port, if it may be taken.
    #[inline(always)]
    #[must_use]
    pub fn candidate(&self, source_port: Port, hash: u32, index: u32) -> Option<Port> {
        if index == 0 && self.contains(source_port.get()) {
            return Some(source_port);
        }
        let count = self.count;
        if count == 0 {
            return None;
        }
        let position = (u64::from(hash) + u64::from(index) * u64::from(STRIDE)) % u64::from(count);
        self.nth(position as u32)
    }

    #[inline(always)]
    fn nth(&self, position: u32) -> Option<Port> {
        let mut left = position;
        let mut at = 0;
        while at < 4 {
            let range = self.ranges[at];
            let count = range.count();
            if left < count {
                return Some(Port::new((u32::from(range.first) + left) as u16));
            }
            left -= count;
            at += 1;
        }
        None
    }
}

/// Whether servers may go by `port` being privileged, as NFS's do (`secure`, exports(5)): such a flow is given no other than a
/// privileged one.
#[inline(always)]
#[must_use]
pub const fn is_privileged(protocol: u8, port: Port) -> bool {
    matches!(protocol, TCP | UDP | SCTP) && PRIVILEGED.contains(port.get())
}

/// As [`PortRanges::candidate`], for a flow of which [`is_privileged`] is true.
#[inline(always)]
#[must_use]
pub const fn privileged_candidate(source_port: Port, hash: u32, index: u32) -> Port {
    if index == 0 {
        return source_port;
    }
    let range = if source_port.get() <= LOWER.last { LOWER } else { UPPER };
    let position = (hash as u64 + index as u64 * STRIDE as u64) % range.count() as u64;
    Port::new(range.first + position as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const LOCAL: PortRange = PortRange { first: 32_768, last: 60_999 };

    #[test]
    fn nodes_usual_ranges_leave_the_rest() {
        let ports = PortRanges::without(&[NODE_PORTS, LOCAL]);
        assert_eq!(ports.ranges[0], PortRange { first: 1024, last: 29_999 });
        assert_eq!(ports.ranges[1], PortRange { first: 61_000, last: 65_535 });
        assert_eq!(ports.count, 28_976 + 4_536);
    }

    #[test]
    fn all_ports_taken_leaves_none() {
        let ports = PortRanges::without(&[PortRange { first: 1, last: u16::MAX }]);
        assert_eq!(ports.count, 0);
        assert_eq!(ports.candidate(Port::new(5), 9, 0), None);
    }

    proptest! {
        #[test]
        fn a_privileged_port_is_kept_or_given_another_of_its_kind(
            port in 1u16..1024, hash: u32, index in 1u32..CANDIDATES,
        ) {
            let source = Port::new(port);
            prop_assert!(is_privileged(TCP, source));
            prop_assert_eq!(privileged_candidate(source, hash, 0), source);
            let other = privileged_candidate(source, hash, index).get();
            let kind = if port < 512 { 1..=511 } else { 600..=1023 };
            prop_assert!(kind.contains(&other), "{}", other);
        }

        #[test]
        fn candidates_are_never_of_a_range_left_out(
            a in 1024u16..20_000, b in 20_000u16..40_000, c in 40_000u16..=u16::MAX,
            source: u16, hash: u32, index in 0u32..CANDIDATES,
        ) {
            let taken = [PortRange { first: a, last: a + 500 }, PortRange { first: b, last: c }];
            let ports = PortRanges::without(&taken);
            if let Some(port) = ports.candidate(Port::new(source), hash, index) {
                prop_assert!(port.get() >= 1024);
                prop_assert!(!taken.iter().any(|range| range.contains(port.get())));
                prop_assert!(ports.contains(port.get()));
            }
        }

        #[test]
        fn a_small_range_is_tried_whole(first in 1024u16..60_000, hash: u32) {
            let last = first + 63;
            let ports = PortRanges {
                ranges: [PortRange { first, last }, PortRange::EMPTY, PortRange::EMPTY, PortRange::EMPTY],
                count: 64,
            };
            let tried: HashSet<_> =
                (0..CANDIDATES).filter_map(|i| ports.candidate(Port::new(1), hash, i)).map(Port::get).collect();
            prop_assert_eq!(tried.len(), 64);
        }

        #[test]
        fn the_same_flow_gets_the_same_candidates(hash: u32, index in 0u32..CANDIDATES) {
            let ports = PortRanges::without(&[NODE_PORTS, LOCAL]);
            let source = Port::new(40_000);
            prop_assert_eq!(ports.candidate(source, hash, index), ports.candidate(source, hash, index));
        }
    }
}
