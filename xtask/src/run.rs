//! Run what was built: the binary on this node, or a scene of the tests' crate.

use std::process::{Command, ExitCode};

use crate::process::{built, cargo, pass_on, whole_path};
use crate::{build, setup};

/// `netplug VERB` on this node.
pub fn netplug(verb: &str, rest: &[String]) -> anyhow::Result<ExitCode> {
    let binary = build::run()?;
    pass_on(Command::new(binary).arg(verb).args(rest))
}

/// The demo or the benchmarks.
pub fn scene(name: &str, rest: &[String]) -> anyhow::Result<ExitCode> {
    let binary = build::run()?;
    setup::to_run_nodes()?;
    let build =
        ["build", "--quiet", "--release", "--locked", "--package", "netplug-tests", "--bin", name];
    let scene = built(cargo().args(build), name)?;
    pass_on(Command::new(scene).args(rest).env("NETPLUG_BIN", binary).env("PATH", whole_path()))
}
