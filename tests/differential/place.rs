//! Where flows begin and end, and by what way they go.

use serde::{Deserialize, Serialize};

/// Where a flow may begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Place {
    /// A pod.
    Pod,
    /// The other pod.
    OtherPod,
    /// The node itself.
    Node,
    /// The host at the other end of the uplink.
    Outside,
    /// That host by an address which is not masqueraded to.
    Intranet,
    /// A host behind that one, by a link that takes less than the others. It has a new address for each program, so that
    /// what pods learned of the way to it is forgotten.
    Far,
    /// Nobody: the outside host has no route to there.
    Nowhere,
    /// Nobody: the outside host does not let anyone there.
    Forbidden,
}

impl Place {
    /// Whether it is one of the pods.
    pub const fn is_pod(self) -> bool {
        matches!(self, Self::Pod | Self::OtherPod)
    }

    /// Whether packets from a pod to it are masqueraded.
    pub const fn is_beyond_masquerade(self) -> bool {
        matches!(self, Self::Outside | Self::Far | Self::Nowhere | Self::Forbidden)
    }

    /// Whether somebody may listen there.
    pub const fn is_somewhere(self) -> bool {
        !matches!(self, Self::Nowhere | Self::Forbidden)
    }
}

/// From where to where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Way {
    /// Where the client is.
    pub from: Place,
    /// Where the server is.
    pub to: Place,
    /// Whether the client speaks to a port of the node that leads to the pod.
    #[serde(default)]
    pub by_host_port: bool,
}

impl Way {
    /// Straight from one to the other.
    pub const fn straight(from: Place, to: Place) -> Self {
        Self { from, to, by_host_port: false }
    }

    /// Whether the server sees the client by the node's address, and by a port that the node chose.
    pub const fn is_masqueraded(self) -> bool {
        self.from.is_pod() && self.to.is_beyond_masquerade()
    }

    /// Whether the node's NAT may choose by which port the server sees the client: also where the node speaks for itself, by a
    /// port that a pod's flow has.
    pub const fn may_change_ports(self) -> bool {
        self.is_masqueraded()
            || (matches!(self.from, Place::Node) && self.to.is_beyond_masquerade())
    }

    /// Whether both ends are on one bridge. What is bridged has no hops; netplug has the host route it, deliberately
    /// (a *visit*), and repeats that without counting the hop.
    pub const fn is_between_pods(self) -> bool {
        self.from.is_pod() && self.to.is_pod()
    }

    /// Whether a client may send fragments. Not to nobody: the outside host turns those away by
    /// a rule, which answers a fragment only if its kernel thinks that it knows the checksum, and that no wire tells it.
    pub const fn takes_fragments(self) -> bool {
        self.to.is_somewhere()
    }
}
