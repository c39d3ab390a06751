//! The decisions: plain values in, plain values out. The programs read packets and maps and call these.

pub mod due;
pub mod identity;
pub mod learn;
pub mod mapping_life;
pub mod opening;
pub mod port_choice;
pub mod retry;
pub mod rewrite;
pub mod room;
