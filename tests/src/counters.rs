//! What netplug says of itself: `netplug counters`, `flows` and `endpoints`. The only place that knows their JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use netplug_common::counter::Counter;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::node::Node;

/// The counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    packets: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Count {
    name: String,
    packets: u64,
}

impl Counters {
    /// Reads them.
    ///
    /// # Panics
    /// When netplug cannot, or prints something else.
    #[must_use]
    #[track_caller]
    pub fn of(node: &Node) -> Self {
        let counts: Vec<Count> = list(node, "counters");
        Self { packets: counts.into_iter().map(|count| (count.name, count.packets)).collect() }
    }

    /// Packets under one counter.
    ///
    /// # Panics
    /// When netplug does not print it.
    #[must_use]
    #[track_caller]
    pub fn get(&self, counter: Counter) -> u64 {
        let found = self.packets.get(counter.name());
        *found.unwrap_or_else(|| panic!("no counter {} in {:?}", counter.name(), self.packets))
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = |(name, now): (&String, &u64)| {
            (
                name.clone(),
                now.saturating_sub(earlier.packets.get(name).copied().unwrap_or_default()),
            )
        };
        Self { packets: self.packets.iter().map(grown).collect() }
    }

    /// Packets that went through the host's stack.
    #[must_use]
    #[track_caller]
    pub fn visits(&self) -> u64 {
        self.get(Counter::Visit) + self.get(Counter::Aside)
    }

    /// Packets that took the short way.
    #[must_use]
    #[track_caller]
    pub fn hits(&self) -> u64 {
        self.get(Counter::Hit)
    }

    /// Packets of others that netplug dropped, for whatever reason. (The host's ND redirects come as soon as its link-local
    /// address may be used, which is a matter of a second.)
    #[must_use]
    #[track_caller]
    pub fn drops(&self) -> u64 {
        Counter::ALL
            .iter()
            .filter(|counter| counter.is_drop() && **counter != Counter::NeighbourRedirect)
            .map(|counter| self.get(*counter))
            .sum()
    }
}

/// A cached flow.
#[derive(Debug, Clone, Deserialize)]
pub struct Flow {
    /// Who speaks, as the packet enters.
    pub source: SocketAddr,
    /// To whom, as the packet enters.
    pub destination: SocketAddr,
    /// Whether a packet would follow it.
    pub live: bool,
}

impl Flow {
    /// Whether it is from the one to the other.
    #[must_use]
    pub fn is_between(&self, source: IpAddr, destination: IpAddr) -> bool {
        (self.source.ip(), self.destination.ip()) == (source, destination)
    }
}

/// The cached flows that packets would follow.
#[must_use]
#[track_caller]
pub fn flows(node: &Node) -> Vec<Flow> {
    let flows: Vec<Flow> = list(node, "flows");
    flows.into_iter().filter(|flow| flow.live).collect()
}

/// An interface that netplug serves.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoint {
    /// The name of the host end.
    pub interface: String,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
}

/// The interfaces that netplug serves.
#[must_use]
#[track_caller]
pub fn endpoints(node: &Node) -> Vec<Endpoint> {
    list(node, "endpoints")
}

#[track_caller]
fn list<T: DeserializeOwned>(node: &Node, what: &str) -> Vec<T> {
    let json = node.netplug_json(what);
    let items = json[what].clone();
    serde_json::from_value(items)
        .unwrap_or_else(|error| panic!("`netplug {what}`: {error}: {json}"))
}
