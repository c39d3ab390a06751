//! What tests, the demo and the benchmarks of netplug share: nodes made of namespaces, a runtime that drives the
//! real binary by the CNI protocol, traffic, service-proxy rules, and a language for packets.
//!
//! - [`node::Node`] is where a scenario begins; [`pod::Pod`] and [`outside::Outside`] speak and listen.
//! - [`network::Network`] is the conflist; [`runtime::Runtime`] calls its plugins.
//! - [`rules`] writes what kube-proxy would; [`eventually`] waits; [`ledger`] and [`counters`] look.
//! - [`tunnel`] is a cable without Ethernet.
//! - [`amnesia`], [`mappings`] and [`undue`] reach into the maps.
//! - [`packet`] is for tests of single programs; [`cast`] is who plays everywhere.

pub mod amnesia;
pub mod bench;
pub mod cast;
pub mod counters;
pub mod demo;
pub mod eventually;
pub mod kernel;
pub mod ledger;
pub mod leftovers;
pub mod mappings;
pub mod namespace;
pub mod network;
pub mod node;
pub mod outside;
pub mod packet;
pub mod pod;
pub mod rules;
pub mod runtime;
pub mod traffic;
pub mod tunnel;
pub mod undue;
pub mod watcher;
