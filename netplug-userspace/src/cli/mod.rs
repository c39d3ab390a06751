//! The command line: what an operator asks of a node. One file for each command.
//!
//! Tables are for people: upper-case heads, two spaces between columns. `-o json` is for scripts: one object with a
//! `schema` number and snake_case keys. Errors go to stderr; exit code 1 is a failure, 2 a usage error.

mod adopt;
mod changes;
mod counters;
mod endpoints;
mod flows;
mod flush;
mod load;
mod masquerade;
mod nat;
mod output;
mod promote;
mod status;
mod unload;
mod watch;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::datapath::{Datapath, FLOWS_MOST, LogLevel};
use output::Format;

/// The pod network of a Kubernetes node: a CNI plugin with TC eBPF programs.
#[derive(Parser)]
#[command(name = "netplug", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "With CNI_COMMAND set, netplug is a CNI plugin; installed as `loopback`, the loopback plugin."
)]
struct Arguments {
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t, env = "NETPLUG_OUTPUT")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Whether the datapath is loaded, how it is set, and what it serves.
    Status,
    /// The pod interfaces that netplug serves.
    Endpoints,
    /// The flows that the cache knows, and what the host made of them.
    Flows,
    /// The ports that masquerade holds.
    Nat,
    /// How many packets went which way, and why any were dropped.
    Counters,
    /// Void every cached flow, so that each asks the host again at once.
    Flush,
    /// Which packets of pods leave as the node; show or change it.
    #[command(subcommand)]
    Masquerade(masquerade::Command),
    /// Keep up with rules, routes, uplinks and their addresses, ports of adopted bridges, and a file of ip-masq-agent's format,
    /// until SIGTERM or SIGINT.
    Watch {
        /// The file; one that is missing stands for ip-masq-agent's defaults.
        #[arg(long, value_name = "FILE")]
        masquerade_file: Option<std::path::PathBuf>,
    },
    /// Load the programs, or replace older ones without losing a packet. (The first ADD does it too.)
    Load {
        /// Have the programs tell what they do, and print it until interrupted.
        #[arg(long, value_enum, default_value_t)]
        log: LogLevel,
        /// Entries of each flow cache, where it is not there yet.
        #[arg(long, default_value_t = netplug_common::maps::FLOWS, value_parser = clap::value_parser!(u32).range(1..=i64::from(FLOWS_MOST)))]
        flow_cache: u32,
    },
    /// Take programs, maps, sysctls and bridges without ports off this node again.
    Unload {
        /// Also while pods are served.
        #[arg(long)]
        force: bool,
    },
    /// Have kube-proxy's rules see what containers and VMs on a bridge of others (docker0, virbr0, podman's) send one another.
    ///
    /// Each packet that the host routes back by the bridge is brought before it; nothing is guarded, masqueraded or learned.
    /// Ports that come later are picked up by `netplug watch`, where that runs, or when the bridge is adopted again.
    Adopt {
        /// The bridge; its ports that are neither veths nor taps are left alone.
        bridge: String,
    },
    /// Undo `adopt`, with all that it has changed.
    Release {
        /// The bridge, be it there or not.
        bridge: String,
    },
    /// Move `from_pod` of every endpoint to TCX, where it costs each packet less.
    Promote,
}

/// Parses the command line and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netplug: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(Arguments { output, command }: Arguments) -> anyhow::Result<()> {
    match command {
        Command::Status => status::run(output),
        Command::Endpoints => endpoints::run(output, &loaded()?),
        Command::Flows => flows::run(output, &loaded()?),
        Command::Nat => nat::run(output, &loaded()?),
        Command::Counters => counters::run(output, &loaded()?),
        Command::Flush => flush::run(output, &loaded()?),
        Command::Masquerade(command) => masquerade::run(output, command),
        Command::Watch { masquerade_file } => watch::run(masquerade_file),
        Command::Load { log, flow_cache } => load::run(output, log, flow_cache),
        Command::Unload { force } => unload::run(output, force),
        Command::Adopt { bridge } => adopt::run(output, &bridge),
        Command::Release { bridge } => adopt::release(output, &bridge),
        Command::Promote => promote::run(output, &loaded()?),
    }
}

fn loaded() -> anyhow::Result<Datapath> {
    Datapath::open()?.context("nothing is loaded on this node; add a pod, or run `netplug load`")
}

/// An interface's name, or its number where it is gone.
fn interface(ifindex: u32) -> String {
    crate::datapath::interface_name(ifindex).unwrap_or_else(|_| format!("#{ifindex}"))
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}
