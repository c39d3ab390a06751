//! Addresses, kept on disk in host-local's own layout, so that a node can move from kubenet or `bridge` + `host-local`
//! and back with its pods alive.

pub mod range;
pub mod store;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

pub use range::{Range, RangeSet};
pub use store::Store;

/// An address that a pod has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The address, with its subnet's prefix.
    pub address: IpNetwork,
    /// The gateway of its subnet.
    pub gateway: IpAddr,
}

/// What can go wrong with addresses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A range of the configuration cannot be.
    #[error("{range}: {wrong}")]
    Range {
        /// As it was written.
        range: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// All are in use.
    #[error("cannot lease an address from {ranges}: all {used} are in use")]
    Exhausted {
        /// The range set.
        ranges: String,
        /// How many are in use.
        used: usize,
    },
    /// The container has one already.
    #[error("{container} has the address {address} for {ifname} already; DEL it first")]
    HasOne {
        /// Which container.
        container: String,
        /// Which interface.
        ifname: String,
        /// Which address.
        address: IpAddr,
    },
    /// An address that was asked for is in no range, or is the gateway's.
    #[error("cannot lease {address}: it is outside of {ranges}, or the gateway's")]
    NotOffered {
        /// Which address.
        address: IpAddr,
        /// All range sets.
        ranges: String,
    },
    /// More addresses were asked for than a pod gets.
    #[error("cannot lease {address} as well: a pod gets one address of {ranges}")]
    TooMany {
        /// The first that is too many.
        address: IpAddr,
        /// Its range set.
        ranges: String,
    },
    /// An address that was asked for is another pod's.
    #[error("cannot lease {address}: it is in use")]
    Taken {
        /// Which address.
        address: IpAddr,
    },
    /// The directory cannot be used.
    #[error("cannot {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
