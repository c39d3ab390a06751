//! netplug's userspace: everything of the `netplug` binary but its `main`.
//!
//! `cni` tells the story of an ADD; `ipam`, `node` and `datapath` are what it uses, and do not know one another. `settings`
//! is how a running node is told of changes, by an ADD or by people, for whom `cli` is.

pub mod cli;
pub mod cni;
pub mod datapath;
mod digest;
pub mod ipam;
pub mod node;
pub mod protocol;
pub mod settings;
mod warning;
