//! The programs, one packet at a time, by BPF_PROG_TEST_RUN: the shipped object, maps as a test sets them, and the whole
//! packet that comes out. A redirect is told by its return code; where it goes, the node tests see.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stood")]

mod calls;
mod datapath;
mod errors;
mod follow;
mod fragments;
mod guard;
mod learn;
mod leave;
mod masquerade;
mod own;
mod protocols;
mod steer;
