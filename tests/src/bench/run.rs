//! The whole table.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::json;

use super::roads::{Bare, Road};
use super::{Pace, add_del, rows, table};
use crate::cast::Family;

/// What netplug costs, beside what it replaces and beside a bare veth pair.
#[derive(Debug, Parser)]
struct Options {
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Services in the node's iptables besides the one that is asked.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Turns of each lane.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// One turn, in milliseconds.
    #[arg(long, default_value_t = 400)]
    slice: u64,
    /// ADDs and DELs to time.
    #[arg(long, default_value_t = 50)]
    pods: usize,
}

/// The `bench` program.
#[must_use]
pub fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::io::Result<()> {
    let pace = Pace { slice: Duration::from_millis(options.slice), rounds: options.rounds };
    let mut all = Vec::new();
    let mut show = |row: rows::Row| {
        if !options.json {
            println!("{}", table::text(&row));
        }
        all.push(table::json(&row));
    };
    let bare = Bare::new();
    let (ours, today) = (Road::netplug(options.services), Road::today(options.services));
    for family in Family::BOTH {
        if !options.json {
            println!("— {family}");
        }
        show(rows::pod_to_pod(family, pace, &bare, &ours, &today)?);
        show(rows::pod_to_service(family, pace, &bare, &ours, &today)?);
        show(rows::masqueraded(family, pace, &ours, &today)?);
        show(rows::masqueraded_requests(family, pace, &ours, &today)?);
        show(rows::masqueraded_connects(family, pace, &ours, &today)?);
        show(rows::host_port(family, pace, &ours, &today)?);
        show(rows::host_port_connects(family, pace, &ours, &today)?);
        show(rows::connects(family, pace, &bare, &ours, &today)?);
    }
    add_del::rows(options.pods)?.into_iter().for_each(&mut show);
    if options.json {
        println!("{}", json!({"services": options.services, "rows": all}));
    }
    Ok(())
}
