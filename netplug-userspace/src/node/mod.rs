//! The node: links, addresses, routes, neighbours and sysctls, by rtnetlink and procfs. Thin verbs; what to do with
//! them is told in `cni`.

pub mod address;
pub mod bridge;
pub mod changes;
mod inotify;
pub mod link;
pub mod masquerade;
pub mod mtu;
pub mod namespace;
pub mod neighbour;
pub mod netlink;
pub mod notices;
pub mod state;
pub mod sysctl;
mod sysctl_change;
pub mod uplink;
pub mod veth;

use std::io;
use std::path::PathBuf;

pub use netlink::Netlink;

/// A MAC address as on the wire.
pub type Mac = [u8; 6];

/// A MAC as people write it.
#[must_use]
pub fn mac_text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// What can go wrong with the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("cannot {verb} {object}")]
    Netlink {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
        /// What the kernel said.
        source: netlink::Refusal,
    },
    /// A system call failed.
    #[error("cannot {verb} {object}")]
    System {
        /// What was tried.
        verb: &'static str,
        /// On what.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A namespace file is not there.
    #[error("the network namespace {path} is gone")]
    NamespaceGone {
        /// Where it was.
        path: PathBuf,
    },
    /// A file is none of a namespace.
    #[error(
        "{path} is not a network namespace; if it was one, the runtime has unmounted it, and the pod is gone"
    )]
    NoNamespace {
        /// Where it is.
        path: PathBuf,
    },
    /// An interface is not there.
    #[error("there is no interface {name}{place}")]
    NoInterface {
        /// Its name.
        name: String,
        /// Where, as a clause; empty for the node.
        place: String,
    },
    /// An interface is up and carries no packets.
    #[error(
        "the interface {name} carries no packets {after:?} after it was brought up; see `ip -details link show {name}`"
    )]
    NotRunning {
        /// Its name.
        name: String,
        /// How long was waited.
        after: std::time::Duration,
    },
    /// A name is taken by another kind of device.
    #[error("the interface {name} is not a bridge; name another in `bridge`, or remove it")]
    NotABridge {
        /// Its name.
        name: String,
    },
    /// Something that is no bridge to be adopted.
    #[error("cannot adopt {bridge}: {reason}")]
    Unadoptable {
        /// Its name.
        bridge: String,
        /// Why not.
        reason: &'static str,
    },
    /// A bridge has another address of the same network.
    #[error(
        "the bridge {name} has the address {found} already, where {wanted} is wanted; remove one of them"
    )]
    AddressConflict {
        /// The bridge.
        name: String,
        /// What it has.
        found: ipnetwork::IpNetwork,
        /// What the configuration wants.
        wanted: ipnetwork::IpNetwork,
    },
    /// A bridge has the MAC that a pod wants.
    #[error(
        "the bridge {bridge} has the MAC {mac} already, at {at}; name another, or DEL the pod that has it",
        mac = mac_text(*mac)
    )]
    MacTaken {
        /// Which.
        mac: Mac,
        /// The bridge.
        bridge: String,
        /// The interface that has it, or that it is behind.
        at: String,
    },
    /// A sysctl is not as it must be and cannot be written.
    #[error("cannot set {name} to {value}; set it on the host")]
    Sysctl {
        /// Its path below /proc/sys.
        name: String,
        /// The value that it must have.
        value: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state file cannot be read.
    #[error("cannot read {path}; it is not what netplug wrote: remove it")]
    State {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
