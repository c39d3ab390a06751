//! The datapath as userspace sees it: load the programs, attach them, write what they read.
//! The only user of aya in netplug.

mod attach;
mod config;
mod endpoints;
mod load;
mod maps;
mod pin;
mod uplinks;
mod view;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

pub use attach::{How, PROGRAMS, interface_name};
pub use load::{LogLevel, load, object, run_logger};
pub use pin::{directory, unload};
pub use view::{Count, FlowView, MappingView, Totals};

/// What can go wrong with the datapath.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// bpffs could not be mounted.
    #[error("cannot mount bpffs on {path}; mount it with: mount -t bpf bpf {path}")]
    Mount {
        /// Where it belongs.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file or folder of ours could not be made, locked or removed.
    #[error("cannot {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object was refused.
    #[error(
        "cannot load the eBPF object; CAP_BPF and CAP_NET_ADMIN are needed, and Linux 5.17 or later"
    )]
    Load(#[source] Box<aya::EbpfError>),
    /// A program was refused, or is not pinned where it should be.
    #[error("cannot {verb} the program {program}")]
    Program {
        /// What was tried.
        verb: &'static str,
        /// With which.
        program: &'static str,
        /// What the kernel said.
        source: Box<aya::programs::ProgramError>,
    },
    /// A program or map could not be pinned.
    #[error("cannot pin {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: aya::pin::PinError,
    },
    /// A map could not be opened, read or written.
    #[error("cannot {verb} the map {map}")]
    Map {
        /// What was tried.
        verb: &'static str,
        /// With which.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
    /// A pinned map has another shape than these programs expect.
    #[error(
        "the pinned map {map} is of another netplug's layout; run `netplug unload`, then try again"
    )]
    Layout {
        /// Which.
        map: &'static str,
    },
    /// An interface is gone, or was not what it should be.
    #[error("cannot find interface {ifindex}")]
    Interface {
        /// Its index.
        ifindex: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could be attached neither way.
    #[error("cannot attach {program} to {interface}")]
    Attach {
        /// Which program.
        program: &'static str,
        /// Where.
        interface: String,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An address already belongs to another endpoint.
    #[error(
        "the address {address} belongs to the endpoint on interface {ifindex} already; DEL that pod first"
    )]
    AddressTaken {
        /// Which.
        address: IpAddr,
        /// Whose.
        ifindex: u32,
    },
    /// Developer's log could not be opened.
    #[error("cannot read the programs' log")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How pod traffic is brought before the host; `steering` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steering {
    /// The first packets of a flow visit the host, the rest repeat its decision.
    #[default]
    Learn,
    /// Every packet visits the host.
    Always,
    /// As `Learn`, but connections between pod addresses of this node never visit.
    Direct,
}

/// How programs are attached to endpoints; `attach` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attach {
    /// clsact for endpoints, TCX for uplinks, each falling back to the other.
    #[default]
    Auto,
    /// TCX only.
    Tcx,
    /// clsact only.
    Clsact,
}

/// What the whole node's datapath is told: the validated form of netplug's own configuration keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How pod traffic is brought before the host.
    pub steering: Steering,
    /// Whether packets from pods to the outside get the uplink's address.
    pub masquerade: bool,
    /// Destinations that are never masqueraded. Includes the pod networks of this node.
    pub non_masquerade: Vec<IpNetwork>,
    /// Interfaces by which packets leave the node; `None`: those that a default route uses.
    pub uplinks: Option<Vec<String>>,
    /// Age at which a cached flow asks the host again.
    pub revisit: Duration,
    /// Entries of each FLOWS map; taken when the programs are first loaded.
    pub flow_cache: u32,
    /// How programs are attached.
    pub attach: Attach,
}

/// An uplink as it was found on the node, with the addresses to masquerade as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Its addresses of global scope, in the kernel's order; the first of each family is masqueraded as.
    pub addresses: Vec<IpAddr>,
}

/// Whose an endpoint is: a keyed digest of network name, container id and interface name, so that DEL finds
/// the entry with neither `prevResult` nor namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

impl Owner {
    /// The owner of `ifname` of `container` on `network`. The same input gives the same value on every node.
    #[must_use]
    pub fn of(network: &str, container: &str, ifname: &str) -> Self {
        // FNV-1a, 64 bit: stable across builds, which the standard library's hasher is not.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in
            network.bytes().chain([0]).chain(container.bytes()).chain([0]).chain(ifname.bytes())
        {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(hash)
    }
}

/// One pod interface that netplug serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Interface index of the veth's host end.
    pub ifindex: u32,
    /// Whose it is.
    pub owner: Owner,
    /// Interface index of the bridge whose port the host end is; `None` where it is routed (ptp).
    pub bridge: Option<u32>,
    /// The MAC that brings a packet up to the host's L3: the bridge's, or the host end's own where there is none.
    pub gateway_mac: [u8; 6],
    /// MAC of the pod end.
    pub pod_mac: [u8; 6],
    /// The pod's addresses (at most one of each family is guarded and masqueraded per entry; see `MAX_ADDRESSES`).
    pub addresses: Vec<IpAddr>,
    /// Whether packets whose source is not the pod's own are dropped.
    pub source_guard: bool,
    /// How the programs are attached to it.
    pub attach: Attach,
}

/// The loaded, pinned datapath of this node.
pub struct Datapath {
    maps: maps::Maps,
}

impl Datapath {
    /// Opens the pinned datapath, or loads and pins it (mounting bpffs where that is missing) when there is
    /// none or it is of another layout. Writes `settings` where they differ; bumps the epoch if any did.
    pub fn open_or_load(settings: &Settings) -> Result<Self, Error> {
        let datapath = match Self::open()? {
            Some(datapath) => datapath,
            None => {
                load(settings.flow_cache, LogLevel::Off)?;
                Self { maps: maps::Maps::open()? }
            }
        };
        datapath.write_settings(settings)?;
        Ok(datapath)
    }

    /// Opens the pinned datapath; `None` where nothing is pinned.
    pub fn open() -> Result<Option<Self>, Error> {
        if pin::is_loaded() { Ok(Some(Self { maps: maps::Maps::open()? })) } else { Ok(None) }
    }
}
