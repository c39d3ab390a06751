//! What a developer types: `cargo xtask VERB`. Each verb is a file; each installs what it needs first.

mod build;
mod lint;
mod process;
mod run;
mod setup;
mod test;
#[expect(dead_code, reason = "the build script of netplug-userspace uses the rest")]
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Build, load, demo, test and bench netplug",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// Arguments that are handed on as they are.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing on this machine: packages, linker, eBPF target.
    Setup,
    /// Build the eBPF object and the binary.
    Build,
    /// Load the programs onto this node (`--log LEVEL` shows what they do).
    Load(Rest),
    /// Take them off again.
    Unload(Rest),
    /// Make a node of network namespaces and show every way that a pod's traffic can go (`--json`).
    Demo(Rest),
    /// Run every test; arguments go to `cargo test`.
    Test(Rest),
    /// Run the nodes' tests with programs whose hashes have 8 bits, so that flows share them all the time.
    TestNarrowHash(Rest),
    /// Change a node at random while it is asked, for an hour or `--seconds`, and hold every answer against what may be.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 3_600)]
        seconds: u32,
    },
    /// Measure side by side with what everyone runs today (`--json`).
    Bench(Rest),
    /// Formatting and clippy, both sides, warnings denied.
    Lint,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Setup => setup::everything().map(|()| ExitCode::SUCCESS),
        Verb::Build => build::show().map(|()| ExitCode::SUCCESS),
        Verb::Load(Rest { rest }) => run::netplug("load", &rest),
        Verb::Unload(Rest { rest }) => run::netplug("unload", &rest),
        Verb::Demo(Rest { rest }) => run::scene("demo", &rest),
        Verb::Bench(Rest { rest }) => run::scene("bench", &rest),
        Verb::Test(Rest { rest }) => test::run(false, &rest),
        Verb::TestNarrowHash(Rest { rest }) => test::run(true, &rest),
        Verb::Soak { seconds } => test::soak(seconds),
        Verb::Lint => lint::run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
