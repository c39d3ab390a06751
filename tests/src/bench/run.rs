//! The whole table.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::{Value, json};

use super::roads::{Bare, PORT, Road};
use super::rows::{Places, ROWS, Row};
use super::{Pace, add_del, crowd, order, race, table};
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
    /// Only the rows in whose name this is found.
    #[arg(long, default_value = "")]
    only: String,
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
    let mut print = |text: String, json: Value| {
        if !options.json {
            println!("{text}");
        }
        all.push(json);
    };
    let is_wanted = |work: &str| work.contains(&options.only);
    let wanted = ROWS.into_iter().filter(|(work, _)| is_wanted(work));
    if wanted.clone().next().is_some() {
        let services = options.services;
        let places = Places {
            bare: Bare::new(),
            ours: Road::netplug(services),
            today: Road::today(services),
        };
        for family in Family::BOTH {
            if !options.json {
                println!("— {family}");
            }
            for (work, lanes) in wanted.clone() {
                let row = Row { work, lanes: race(&mut lanes(&places, family)?, pace)? };
                print(table::text(&row), table::json(&row));
            }
        }
    }
    if is_wanted(order::WORK) {
        let (ours, today) = (Road::netplug(1), Road::today(1));
        for family in Family::BOTH {
            let order = order::count(&ours, &today, family, PORT, options.rounds)?;
            print(order.text(), order.json());
        }
    }
    if is_wanted(crowd::WORK) {
        for family in Family::BOTH {
            let row = crowd::row(family, pace)?;
            print(table::text(&row), table::json(&row));
        }
    }
    for plan in
        add_del::PLANS.into_iter().filter(|plan| plan.works.iter().any(|work| is_wanted(work)))
    {
        for row in plan.rows(options.pods)? {
            print(table::text(&row), table::json(&row));
        }
    }
    if options.json {
        println!("{}", json!({"services": options.services, "rows": all}));
    }
    Ok(())
}
