//! What the host decides of flows may be another now: its rules, routes and addresses changed.
//!
//! # Told by the kernel
//! - nf_tables, and iptables by it: each generation of its rules
//! - legacy iptables: nothing; its tables are looked at (`xtables/`)
//! - rtnetlink: routes, nexthops, policy rules, addresses, interfaces that go down (`rtnetlink.rs`)
//! # Nobody's business
//! - Neighbours: the short way asks the kernel for an uplink's (`bpf_redirect_neigh`), and a pod's MAC is what its ADD told.
//! - conntrack, which the host keeps about single flows, not about what becomes of new ones.
//! # Always
//! A change is in force before it is told. What was told is read to its end before it is answered, so that what the kernel left
//! out, because nobody read, is answered too. The first is answered at once, what follows soon after together with the last.

mod listener;
mod nftables;
mod pace;
mod rtnetlink;
mod xtables;

use std::time::Instant;

use tokio::runtime::Runtime;

use super::Error;
use listener::Listener;
use pace::Pace;
use xtables::Xtables;

/// Who listens for changes.
pub struct Changes {
    runtime: Runtime,
    routes: Listener,
    known: rtnetlink::Known,
    nftables: Listener,
    xtables: Xtables,
    pace: Pace,
}

impl Changes {
    /// Listens in the calling thread's namespace from now on. What was before is a change that nobody told.
    pub fn listen() -> Result<Self, Error> {
        let fail = |object: &'static str| {
            move |source| Error::System { verb: "listen to", object: object.into(), source }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(fail("the kernel"))?;
        let context = runtime.enter();
        let routes = rtnetlink::open().map_err(fail("rtnetlink"))?;
        let nftables = nftables::open().map_err(fail("nf_tables"))?;
        let xtables = Xtables::listen().map_err(fail("iptables"))?;
        drop(context);
        let mut pace = Pace::default();
        pace.note(Instant::now());
        Ok(Self { runtime, routes, known: rtnetlink::Known::default(), nftables, xtables, pace })
    }

    /// Waits until something is to be answered.
    pub fn wait(&mut self) -> Result<(), Error> {
        let Self { runtime, routes, known, nftables, xtables, pace } = self;
        let fail = |object: &'static str| {
            move |source| Error::System { verb: "listen to", object: object.into(), source }
        };
        runtime.block_on(async {
            loop {
                let now = Instant::now();
                if pace.answers(now) {
                    return Ok(());
                }
                let due = async {
                    match pace.due() {
                        Some(due) => tokio::time::sleep_until(due.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = due => continue,
                    told = routes.changed(|told| known.changes(told)) => {
                        told.map_err(fail("rtnetlink"))?;
                        // The kernel tells of an IPv4 route that goes before it is gone (`fib_table_delete`,
                        // net/ipv4/fib_trie.c, Linux 6.12), and of an interface that goes down before its routes are.
                        pace.note_early(Instant::now());
                        continue;
                    }
                    told = nftables.changed(nftables::changes) => told.map_err(fail("nf_tables"))?,
                    told = xtables.changed() => told.map_err(fail("iptables"))?,
                }
                pace.note(Instant::now());
            }
        })
    }

    /// Has what could not be answered be answered again, after a while.
    pub fn put_off(&mut self) {
        self.pace.put_off(Instant::now());
    }
}
