//! The datapath as userspace sees it: load the programs, attach them, write what they read.
//! The only user of aya in netplug.

mod adopted;
mod attach;
mod clsact;
mod config;
mod endpoints;
mod host_ports;
mod load;
mod maps;
mod masquerade;
mod pin;
mod sockets;
mod uplinks;
mod view;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use netplug_common::decide::mapping_life::Lifetimes;

use crate::digest;

pub use adopted::AdoptedPort;
pub use attach::{How, PROGRAMS, interface_name, served};
pub use config::Accepted;
pub use host_ports::HostPort;
pub use load::{FLOWS_MOST, LogLevel, load, object, run_logger};
pub use pin::{Lock, directory, unload};
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
    /// The object was refused to somebody without the rights.
    #[error("cannot load the eBPF object; CAP_BPF and CAP_NET_ADMIN are needed")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object was refused for another reason.
    #[error("cannot load the eBPF object, which needs Linux 5.17 or later")]
    Refused(#[source] Box<aya::EbpfError>),
    /// The kernel made no map, for another reason than that nobody may have one.
    #[error("cannot make the map {map}")]
    Make {
        /// Which; also one that is not pinned.
        map: String,
        /// What the kernel said.
        source: io::Error,
    },
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
    /// A map's pin is gone.
    #[error(
        "the pin of the map {map} is lost; run `netplug unload --force`, then add the pods anew"
    )]
    Lost {
        /// Which.
        map: &'static str,
    },
    /// A map that cannot be made up is lost under pods.
    #[error(
        "the pin of the map {map} is lost while {pods} pods are served; DEL those, or run `netplug unload --force`, then add \
         them anew"
    )]
    Torn {
        /// Which.
        map: &'static str,
        /// How many there are.
        pods: usize,
    },
    /// A pinned map has another shape than these programs expect.
    #[error(
        "the pinned map {map} is of another netplug's layout; run `netplug unload --force`, then try again"
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
    /// The program could be attached neither way, or not be taken off.
    #[error("cannot {verb} {program}: interface {interface}")]
    Attach {
        /// What was tried.
        verb: &'static str,
        /// Which program.
        program: &'static str,
        /// Where.
        interface: String,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Others' filters leave no room for ours.
    #[error(
        "cannot attach {program}: every priority from {first} on is another's filter's on {interface}; remove one, or set \
         attach to tcx"
    )]
    NoPlace {
        /// Which program.
        program: &'static str,
        /// Where.
        interface: String,
        /// The first priority that would do.
        first: u16,
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
    /// Another pod has the port of the node.
    #[error(
        "HostPort {wanted} clashes with {open}, which another pod has; DEL that pod, or name another port"
    )]
    HostPortTaken {
        /// What was asked for.
        wanted: HostPort,
        /// What there is.
        open: HostPort,
    },
    /// There is no place for socket hooks.
    #[error(
        "no control groups of version 2 are mounted, which HostPorts need for the node's own processes; mount them with: \
         mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    )]
    NoControlGroups,
    /// The host's ephemeral ports leave none for masquerade.
    #[error(
        "masquerade has no ports: net.ipv4.ip_local_port_range is {first} {last}, and the rest are NodePorts; narrow it, or \
         turn masquerade off"
    )]
    NoPorts {
        /// The first ephemeral port.
        first: u16,
        /// The last.
        last: u16,
    },
    /// More CIDRs than the datapath holds.
    #[error(
        "{count} non-masquerade CIDRs of a family are more than the {limit} that fit; name larger ones"
    )]
    TooManyCidrs {
        /// How many.
        count: usize,
        /// How many fit.
        limit: u32,
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

impl Attach {
    /// The configuration's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// What a word of the configuration means; `Auto` where it is none.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        [Self::Tcx, Self::Clsact].into_iter().find(|how| how.name() == name).unwrap_or_default()
    }
}

/// Which packets from pods to the outside get the uplink's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// Any at all.
    pub on: bool,
    /// Those to 169.254.0.0/16.
    pub link_local: bool,
    /// Those to fe80::/10.
    pub link_local_ipv6: bool,
    /// Destinations that are never masqueraded, of all networks of the node. Includes where their pods are.
    pub exempt: Vec<IpNetwork>,
}

/// What the whole node's datapath is told: the validated form of netplug's own configuration keys.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How pod traffic is brought before the host.
    pub steering: Steering,
    /// Which packets from pods to the outside get the uplink's address.
    pub masquerade: Masquerade,
    /// Interfaces by which packets leave the node.
    pub uplinks: Vec<Uplink>,
    /// Age at which a cached flow asks the host again.
    pub revisit: Duration,
    /// How long a mapping holds its port.
    pub lifetimes: Lifetimes,
    /// How programs are attached.
    pub attach: Attach,
    /// The host's ephemeral ports (`net.ipv4.ip_local_port_range`, inclusive), which masquerade never takes from; `None`:
    /// as they were.
    pub local_ports: Option<(u16, u16)>,
}

/// An uplink as it was found on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Interface index.
    pub ifindex: u32,
    /// What pods leave as by it; of a family one at the most.
    pub addresses: Vec<IpAddr>,
    /// The smallest MTU that a route by it has of its own, in L3 bytes: longer packets are not sent the short way.
    pub route_mtu: Option<u32>,
}

/// Whose an endpoint is: a digest of network name, container id and interface name, so that DEL finds the entry with
/// neither `prevResult` nor namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

impl Owner {
    /// The owner of `ifname` of `container` on `network`. The same input gives the same value on every node.
    #[must_use]
    pub fn of(network: &str, container: &str, ifname: &str) -> Self {
        Self(digest::of(&[network, container, ifname]))
    }
}

/// Which pod an endpoint is of: a digest of its container's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodId(pub u64);

impl PodId {
    /// The pod of `container`. The same input gives the same value on every node.
    #[must_use]
    pub fn of(container: &str) -> Self {
        Self(digest::of(&[container]))
    }
}

/// One pod interface that netplug serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Interface index of the veth's host end.
    pub ifindex: u32,
    /// Whose it is.
    pub owner: Owner,
    /// The pod that it is of.
    pub pod: PodId,
    /// Interface index of the bridge whose port the host end is; `None` where it is routed (ptp).
    pub bridge: Option<u32>,
    /// The MAC that brings a packet up to the host's L3: the bridge's, or the host end's own where there is none.
    pub gateway_mac: [u8; 6],
    /// MAC of the pod end.
    pub pod_mac: [u8; 6],
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Those of them that the host does not route by the bridge; with one, none of its family is brought before the host.
    pub unrouted: Vec<IpAddr>,
    /// Whether packets whose source is not the pod's own are dropped.
    pub source_guard: bool,
    /// How the programs are attached to it.
    pub attach: Attach,
}

/// The loaded, pinned datapath of this node.
pub struct Datapath {
    maps: maps::Maps,
    /// Keeps others from unloading.
    _lock: Option<Lock>,
}

impl Datapath {
    /// Opens the pinned datapath, or loads and pins it (mounting bpffs where that is missing) when there is none, or one of
    /// another build; `flow_cache`: entries of each FLOWS map, where they are not pinned yet. For as long as it is open nobody
    /// unloads it.
    pub fn open_or_load(flow_cache: u32) -> Result<Self, Error> {
        let mut lock = Lock::shared()?;
        // Loading wants the lock for itself, and somebody may unload, or load another build, before it is shared again:
        // who is overtaken thrice goes on with what is there.
        for _ in 0..3 {
            if load::is_current()? {
                break;
            }
            drop(lock);
            load(flow_cache, LogLevel::Off)?;
            lock = Lock::shared()?;
        }
        Ok(Self { maps: maps::Maps::open()?, _lock: Some(lock) })
    }

    /// Opens what is left of the pinned datapath, for who takes pods or all of it away; `None` where nothing is. What asks for a
    /// map that is lost finds it empty where its doc says so, and else fails.
    pub fn open_what_is_left() -> Result<Option<Self>, Error> {
        if !maps::is_any_pinned() {
            return Ok(None);
        }
        Self::whatever_is_left().map(Some)
    }

    /// The same, be it nothing: programs hang on ports without any pin.
    pub fn whatever_is_left() -> Result<Self, Error> {
        maps::left(maps::Maps::open())?;
        Ok(Self { maps: maps::Maps, _lock: None })
    }

    /// Whether all of it is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        pin::is_loaded()
    }

    /// Opens the pinned datapath; `None` where there is none, or not all of it.
    pub fn open() -> Result<Option<Self>, Error> {
        if !pin::is_loaded() {
            return Ok(None);
        }
        Ok(Some(Self { maps: maps::Maps::open()?, _lock: None }))
    }
}
