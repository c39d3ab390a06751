//! A language for packets.
pub mod checksum;
