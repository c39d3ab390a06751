//! What is done with a packet, one decision each. Stages are called by hooks and never by one another.

pub mod direct;
pub mod errors;
pub mod flow_cache;
pub mod guard;
pub mod host_port;
pub mod learn;
pub mod masquerade;
pub mod own;
pub mod steer;
pub mod visit;
