//! What a running node is told: by an ADD, by an operator, by a watched file. Each goes by the same way, under one lock: written
//! beside the state file, then told to the datapath, then put in the state file's place, so that what is refused is not kept, and
//! what there is no room for does not count.
//!
//! # Who counts
//! What networks ask for is as their last ADDs had it. What was chosen at run time (`netplug masquerade set`, `netplug
//! watch`) counts for the whole node over that, until `--reset` or `unload`. Pods' own networks are exempt whatever is chosen.

pub mod adopted;
pub mod agent_file;
pub mod cidrs;
mod duration;
pub mod masquerade;
pub mod uplinks;

use crate::{datapath, node};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Interfaces, addresses, the state file.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// The datapath.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
}
