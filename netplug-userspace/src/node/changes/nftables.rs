//! nf_tables: its rules change in transactions, each of which makes a generation. It is told once its rules are in force, and
//! after all else about it (`nf_tables_commit`, net/netfilter/nf_tables_api.c).

use std::io;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::listener::{Listener, Told};

/// `NFNLGRP_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// `NFT_MSG_NEWGEN` of `NFNL_SUBSYS_NFTABLES`.
const NEW_GENERATION: u16 = 10 << 8 | 15;

pub fn open() -> io::Result<Listener> {
    Listener::open(NETLINK_NETFILTER, 1 << (GROUP - 1))
}

pub fn changes(told: Told<'_>) -> bool {
    matches!(told, Told::Message(NEW_GENERATION, _) | Told::TooMuch)
}
