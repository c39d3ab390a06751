//! A model of the flow cache: two nodes that hear the same packets, one of them with the cache.
//!
//! # What is promised
//! What becomes of a packet, which pod gets it and as whose, or that none does, is what the host without the cache would have
//! made of it
//! 1. at some moment within the last `revisit`, and
//! 2. since the last change of epoch, and
//! 3. since an opening of its tuple entered, and
//! 4. since the host gave its tuple, or its answers', to a flow that it translated.
//!
//! A decision is as young as the last packet that it was made for and that left in its epoch: the way through the host takes
//! time.
//!
//! # What is modelled
//! - `cast.rs`: pods, services, uplinks, and what is said
//! - `host.rs`: conntrack, NAT, a firewall rule, routes: what decides
//! - `cache.rs`: FLOWS and VISITS, with the types of `maps` and the decisions of `decide`, as the programs have them
//! - `promise.rs`: what may become of a packet now, by the list above
//! - `node.rs`: the state. `packet.rs`, `change.rs`: what happens to it. `action.rs`: what can. `tell.rs`: in words
//! - `rules.rs`: the rules of the cache; each can be taken out
//! - `world.rs`: small worlds. `search.rs`: everything that can happen in one, the short ways there first; `fingerprint.rs` tells it
//!   what it has seen
//!
//! # What is shown
//! - `holds.rs`: in each small world the promise holds in every state that can be reached, however long it takes
//! - `random.rs`: and in long random stories of a large one
//! - `taken_out.rs`: without any one of the rules it breaks; the shortest story of it is printed
//! - `limits.rs`: what breaks it today, with the rule that would prevent it
//!
//! # What is not
//! Torn reads of map values, MTU and hops, fragments and ICMP, masquerade and HostPorts (to the cache they are one more
//! translation by the host), steering `direct` (which asks no host), and how a packet is rewritten. Whether a packet is noted
//! at all (`decide::retry`) is left open: a visit can be lost at any time. Answers do not wait for what they answer (`decide::due`):
//! the wait is over within `revisit`.

mod action;
mod cache;
mod cast;
mod change;
mod fingerprint;
mod host;
mod node;
mod packet;
mod promise;
mod rules;
mod search;
mod tell;
mod world;

mod holds;
mod limits;
mod random;
mod taken_out;
