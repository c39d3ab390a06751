//! The demo: a node of namespaces, three pods by real CNI calls, kube-proxy's rules, `bridge-nf-call-iptables=0`;
//! then each way of a packet with what was seen, and what a packet costs.
//!
//! Nothing of it outlives the process: the namespaces hang on its file descriptors, so Ctrl-C needs no handler.

mod checks;
mod cost;
mod report;
mod scene;

use std::process::ExitCode;

use clap::Parser;

use crate::cast::Family;
use report::Report;
use scene::Scene;

/// Shows a netplug node at work, in namespaces of its own, and what it costs.
#[derive(Debug, Parser)]
struct Options {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
    /// Which of Debian's plugins made the interface of the chained pod.
    #[arg(long, default_value = "bridge", value_parser = ["bridge", "ptp"])]
    chained: String,
    /// Leave the measurements out.
    #[arg(long)]
    no_cost: bool,
}

/// The `demo` program.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse();
    let mut report = Report::new(options.json);
    let binary = std::env::var_os("NETPLUG_BIN");
    if binary.is_none() {
        eprintln!(
            "NETPLUG_BIN must name the netplug binary: run `cargo xtask demo`, which builds it and sets this"
        );
        return ExitCode::from(2);
    }
    if let Some(scene) =
        report.build("three pods get their network", || Scene::new(&options.chained))
    {
        for family in Family::BOTH {
            report.chapter(family.name());
            for (name, check) in checks::ALL {
                report.check(&format!("{name} ({family})"), || check(&scene, family));
            }
        }
        report.chapter("both");
        report.check("flows learned", || checks::flows_learned(&scene));
        report.build("pods leave, nothing remains", || scene.leave());
        if !options.no_cost {
            report.chapter("CPU per packet, small UDP, in turn on one CPU");
            report.cost(cost::measure);
        }
    }
    report.finish()
}
