//! Every test: pure functions, programs by test runs, nodes of namespaces.

use std::process::ExitCode;

use crate::process::{cargo, pass_on, whole_path};
use crate::{build, setup};

/// `rest` goes to `cargo test`.
pub fn run(rest: &[String]) -> anyhow::Result<ExitCode> {
    let binary = build::run()?;
    setup::to_run_nodes()?;
    let mut command = cargo();
    command.args(["test", "--workspace", "--locked"]).args(rest);
    command.env("NETPLUG_BIN", binary).env("PATH", whole_path());
    if std::env::var_os("CI").is_some() {
        command.env("NETPLUG_NO_SKIP", "1");
    }
    pass_on(&mut command)
}
