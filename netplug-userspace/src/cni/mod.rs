//! netplug as a CNI plugin (containernetworking/cni, SPEC.md): the runtime's request comes in the environment and on
//! stdin, the result goes to stdout and nothing else does. Warnings and errors' details go to stderr.

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

use std::process::ExitCode;

use serde_json::json;

pub use error::Error;
use request::{Command, Request};

/// The versions of the spec that netplug speaks.
pub const VERSIONS: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0"];

/// Runs what the environment asks for, as the plugin.
#[must_use]
pub fn run() -> ExitCode {
    answer(|request| match request.command {
        Command::Add => add::run(request).map(Some),
        Command::Del => del::run(request).map(|()| None),
        Command::Check => check::run(request).map(|()| None),
        Command::Version => Ok(Some(versions(request))),
    })
}

/// Runs what the environment asks for, as the `loopback` plugin.
#[must_use]
pub fn run_loopback() -> ExitCode {
    answer(|request| match request.command {
        Command::Add => loopback::add(request).map(Some),
        Command::Del => loopback::del(request).map(|()| None),
        Command::Check => loopback::check(request).map(|()| None),
        Command::Version => Ok(Some(versions(request))),
    })
}

/// Makes a panic an answer that a runtime can read.
pub fn answer_panics() {
    std::panic::set_hook(Box::new(|panic| {
        println!(
            "{}",
            error::json("1.0.0", error::BUG, "netplug has a bug and stopped", &panic.to_string())
        );
        eprintln!("netplug: {panic}");
    }));
}

fn answer(work: impl FnOnce(&Request) -> Result<Option<serde_json::Value>, Error>) -> ExitCode {
    let mut version = VERSIONS[VERSIONS.len() - 1].to_owned();
    let result = Request::read().and_then(|request| {
        version.clone_from(&request.cni_version);
        work(&request)
    });
    match result {
        Ok(Some(reply)) => println!("{reply}"),
        Ok(None) => {}
        Err(error) => {
            println!("{}", error.to_json(&version));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn versions(request: &Request) -> serde_json::Value {
    json!({"cniVersion": request.cni_version, "supportedVersions": VERSIONS})
}
