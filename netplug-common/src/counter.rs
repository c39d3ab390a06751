//! What the programs count: one entry of COUNTERS for each way a packet can go, and one for each reason
//! to drop it. Numbers are append-only and never reused: they are COUNTERS' indexes.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kind:ident, $text:literal, $meaning:literal;)*) => {
        /// A line of COUNTERS.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter { $($(#[$doc])* #[doc = $meaning] $name = $number,)* }

        impl Counter {
            /// Every counter, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name for people and scripts.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What a packet counted here met, and where an operator looks next.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// Whether the packets counted here were dropped.
            #[must_use]
            pub const fn is_drop(self) -> bool {
                match self { $(Self::$name => matches!(Kind::$kind, Kind::Drop),)* }
            }
        }
    };
}

enum Kind {
    Way,
    Drop,
}

counters! {
    Hit = 0, Way, "hit", "Took the short way: the flow cache knew what the host had decided.";
    Visit = 1, Way, "visit", "Went through the host's stack, to be learned from if it comes out again.";
    Aside = 2, Way, "aside", "Went through the host's stack without being learned from: opening, closing, ICMP, fragment, or a flow that ends in the host.";
    Learned = 3, Way, "learned", "Came out of the host and taught the flow cache its tuple.";
    NotIdentical = 4, Way, "not_identical", "Came out of the host under a known hash but was not the packet that had entered, so nothing was learned.";
    Masqueraded = 5, Way, "masqueraded", "Got the uplink's address on its way out of the host (packets on the short way are counted as hits).";
    Unmasqueraded = 6, Way, "unmasqueraded", "Got its pod's address back on its way into the host.";
    Healed = 7, Way, "healed", "Found one half of its mapping missing and wrote it again from the other.";
    Left = 8, Way, "left", "Left the host by an endpoint or uplink after it had entered by one, as `visit` or `aside`.";
    FragmentKept = 9, Way, "fragment_kept", "A later fragment came before the first of its datagram, by which alone its flow is known: kept until that comes.";
    FragmentReleased = 10, Way, "fragment_released", "A kept fragment went on after the first of its datagram.";
    GaveWay = 11, Way, "gave_way", "A mapping that had ended, or carried no data, was removed because its map was full (mappings, not packets).";
    HostPort = 12, Way, "host_port", "Called a HostPort and was addressed to its pod, or answers such a call (packets on the short way are counted as hits).";
    Crowded = 13, Way, "crowded", "Was not to be learned from (counted as `aside`, too): more flows are new than the flow cache can keep; see the setting `flowCache`.";
    SourceAddress = 16, Drop, "source_address", "A pod sent from an address that is not its own; see `netplug endpoints`, or set sourceGuard to false.";
    SourceMac = 17, Drop, "source_mac", "A pod sent from a MAC that is not its own; see `netplug endpoints`, or set sourceGuard to false.";
    ArpClaim = 18, Drop, "arp_claim", "A pod claimed by ARP an address that is not its own, or spoke ARP of another kind than IPv4 over Ethernet.";
    NeighbourClaim = 19, Drop, "neighbour_claim", "A pod claimed by neighbour advertisement an address that is not its own.";
    RouterAdvertisement = 20, Drop, "router_advertisement", "A pod sent an IPv6 router advertisement or redirect.";
    DhcpServer = 21, Drop, "dhcp_server", "A pod answered as a DHCP server.";
    NeighbourRedirect = 22, Drop, "neighbour_redirect", "The host's own ND redirect towards a pod, which would send the pod past the service proxy.";
    PortsExhausted = 23, Drop, "ports_exhausted", "Masquerade found no free port towards this destination; see `netplug nat`.";
    NotTranslatable = 24, Drop, "not_translatable", "Should have been masqueraded but is of a protocol that is not translated, or an ICMP error about none of the pod's flows.";
    RewriteFailed = 25, Drop, "rewrite_failed", "The kernel refused a rewrite half way; the packet was not let out half translated.";
    TupleInUse = 26, Drop, "tuple_in_use", "The host gave a connection the very tuple of one that it does not know: a live direct one (steering `direct`), or a masqueraded one. It fails; the client's next gets another port.";
    NoMapping = 27, Drop, "no_mapping", "Looked like a TCP answer to a masqueraded flow whose mapping was lost, too soon after the last search for lost mappings to search again; the sender repeats it.";
    HiddenDiscovery = 28, Drop, "hidden_discovery", "A pod sent behind IPv6 extension headers what may be neighbour discovery (255 hops) or an answer as a DHCP server (to a link-local address).";
    PriorityTag = 29, Drop, "priority_tag", "A pod sent a frame with a priority tag (VLAN 0) or two tags, which hosts take off to find what was not guarded.";
    FirstMissing = 30, Drop, "first_missing", "A later fragment whose datagram's first never came, or that was too long to be kept for it.";
    MappingsFull = 31, Drop, "mappings_full", "Masquerade has no room for one more flow: all its mappings carry data; see `netplug nat`.";
    SctpFragment = 32, Drop, "sctp_fragment", "An SCTP packet in fragments whose port would have to change: its checksum covers what is not there.";
}

/// Entries of the COUNTERS map; room for growth within a layout.
pub const COUNTERS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_within_the_map() {
        let numbers: std::collections::HashSet<_> =
            Counter::ALL.iter().map(|c| *c as u32).collect();
        assert_eq!(numbers.len(), Counter::ALL.len());
        assert!(numbers.iter().all(|number| *number < COUNTERS));
    }

    #[test]
    fn drops_are_told_from_ways() {
        assert!(Counter::SourceAddress.is_drop());
        assert!(!Counter::Hit.is_drop());
    }
}
