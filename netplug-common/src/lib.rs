//! What both sides of the kernel boundary agree on: the words, the map types and the pure decisions.
//!
//! Nothing here does I/O or allocates, so the programs (`netplug-ebpf`) and the binary (`netplug-userspace`)
//! compile the very same source, and every decision is tested on the host.
//!
//! # Glossary
//! - **node**: the machine (in tests a network namespace). **pod**: a network namespace with an address.
//! - **endpoint**: one pod interface that netplug serves: its host end, addresses, MAC, flags.
//! - **uplink**: an interface by which packets leave the node. **bridge**: `cbr0` by default.
//! - **enter / leave**: a packet *enters* the host at an endpoint's host end or an uplink, where `from_pod` or
//!   `from_uplink` sees it, and *leaves* it where `to_pod` or `to_uplink` does.
//! - **adopt / release**: steer what the ports of a bridge send that netplug did not make, and do nothing else with it; no more
//!   so.
//! - **tuple**: protocol, source and destination address and port, one direction; its reply is reversed.
//! - **visit**: a packet that goes through the host's stack. **steer**: make it visit although the bridge would
//!   have switched it.
//! - **flow cache**: the FLOWS maps: entered tuple → what the host made of it. **learn**: write such an entry.
//!   **void**: make an entry a miss. **epoch**: a counter; an entry of another epoch is void.
//! - **opening / closing**: a TCP SYN, or a FIN or RST.
//! - **mapping**: the pair of NAT_OUT and NAT_IN entries that masquerade keeps for a flow.
#![cfg_attr(not(test), no_std)]

pub mod checksum;
pub mod counter;
pub mod crc32c;
pub mod decide;
pub mod hash;
pub mod ip;
pub mod maps;
#[cfg(test)]
mod model;
pub mod tuple;
