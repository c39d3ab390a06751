//! Every test: pure functions, programs by test runs, nodes of namespaces.

use std::process::ExitCode;

use crate::process::{cargo, pass_on, whole_path};
use crate::{build, setup};

/// The soak test alone, for so long, and what it tells of itself.
pub fn soak(seconds: u32) -> anyhow::Result<ExitCode> {
    let binary = build::run()?;
    setup::to_run_nodes()?;
    let mut command = cargo();
    command
        .args(["test", "--locked", "--package", "netplug-tests", "--test", "soak"])
        .args(["--", "--nocapture"])
        .env("NETPLUG_SOAK_SECONDS", seconds.to_string())
        .env("NETPLUG_BIN", binary)
        .env("PATH", whole_path());
    pass_on(&mut command)
}

/// With `narrow_hash` nodes alone, by programs whose hashes flows share all the time. `rest` goes to `cargo test`.
pub fn run(narrow_hash: bool, rest: &[String]) -> anyhow::Result<ExitCode> {
    let binary = if narrow_hash { build::run_with_narrow_hash() } else { build::run() }?;
    setup::to_run_nodes()?;
    let what: &[&str] = if narrow_hash {
        &["--package", "netplug-tests", "--test", "nodes"]
    } else {
        &["--workspace"]
    };
    let mut command = cargo();
    command.args(["test", "--locked"]).args(what).args(rest);
    command.env("NETPLUG_BIN", binary).env("PATH", whole_path());
    if std::env::var_os("CI").is_some() {
        command.env("NETPLUG_NO_SKIP", "1");
    }
    pass_on(&mut command)
}
