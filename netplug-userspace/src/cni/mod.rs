//! netplug as a CNI plugin (containernetworking/cni, SPEC.md): the runtime's request comes in the environment and on
//! stdin, the result goes to stdout and nothing else does. Warnings and errors' details go to stderr.

#![deny(
    clippy::print_stderr,
    reason = "it panics where stderr cannot be written; use `warning::warn`"
)]

mod add;
mod chained;
mod check;
mod config;
mod del;
mod error;
mod host_ports;
mod loopback;
mod pod_end;
mod reply;
mod request;
mod resolv_conf;
mod rollback;
mod settings;
mod timeouts;
mod unrouted;

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

pub use error::Error;
use request::{Command, Request};

/// The versions of the spec that netplug speaks.
pub const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// Runs what the environment asks for, as the plugin.
#[must_use]
pub fn run() -> ExitCode {
    answer(|request| match request.command {
        Command::Add => add::run(request),
        Command::Del => del::run(request),
        Command::Check => check::run(request),
        Command::Version => tell(&versions(request)),
    })
}

/// Runs what the environment asks for, as the `loopback` plugin.
#[must_use]
pub fn run_loopback() -> ExitCode {
    answer(|request| match request.command {
        Command::Add => loopback::add(request),
        Command::Del => loopback::del(request),
        Command::Check => loopback::check(request),
        Command::Version => tell(&versions(request)),
    })
}

/// Makes a panic an answer that a runtime can read.
pub fn answer_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        // A panic in here would be the end, with nothing undone.
        let _ = tell(&error::json("1.0.0", error::BUG, "netplug has a bug and stopped", &text));
        let _ = writeln!(io::stderr(), "netplug: {text}");
    }));
}

fn answer(work: impl FnOnce(&Request) -> Result<(), Error>) -> ExitCode {
    let mut version = VERSIONS[VERSIONS.len() - 1].to_owned();
    let result = Request::read().and_then(|request| {
        version.clone_from(&request.cni_version);
        work(&request)
    });
    let Err(error) = result else { return ExitCode::SUCCESS };
    if tell(&error.to_json(&version)).is_err() {
        // All that is left; where that is not to be written to either, the exit code.
        let _ = writeln!(io::stderr(), "netplug: {}", error.whole());
    }
    ExitCode::FAILURE
}

/// Tells the runtime. Who made something calls it before that is for good: what the runtime has not heard of, it may never
/// take down.
fn tell(reply: &Value) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{reply}").and_then(|()| stdout.flush()).map_err(Error::Output)
}

fn versions(request: &Request) -> Value {
    json!({"cniVersion": request.cni_version, "supportedVersions": VERSIONS})
}
