//! Child processes: the repository's folder, and failures as sentences.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

/// The repository.
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// A cargo of the toolchain that runs xtask.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository());
    command
}

/// Debian has its system's programs where a user's PATH may not lead.
pub const SYSTEM: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// PATH, and behind it where the system's programs are.
pub fn whole_path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(path)
}

/// Runs a command to its end; a failure names it. What it prints goes to stderr: stdout is the verb's own, `--json` above all.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    run(command.stdout(std::io::stderr()))
}

/// The same, for those who tell every step.
pub fn succeed_silently(command: &mut Command) -> anyhow::Result<()> {
    run(command.stdout(Stdio::null()))
}

/// Runs a build of cargo's and returns where the program `name` is: which folder that is, environment and configuration may say.
pub fn built(command: &mut Command, name: &str) -> anyhow::Result<PathBuf> {
    let shown = show(command);
    let command = command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed with {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, name).with_context(|| format!("{shown} made no {name}"))
}

fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        (message["target"]["name"] == name).then(|| path.into())
    })
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed with {status}");
    }
    Ok(())
}

/// Runs a command to its end and passes its exit code on. Ctrl-C reaches the child, which cleans up; xtask waits for it.
pub fn pass_on(command: &mut Command) -> anyhow::Result<ExitCode> {
    ctrlc::set_handler(|| {}).context("cannot wait for the child on Ctrl-C")?;
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_where_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"netplug"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/elsewhere/release/other"}
{"reason":"compiler-artifact","target":{"name":"netplug"},"executable":"/elsewhere/release/netplug"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "netplug"), Some("/elsewhere/release/netplug".into()));
        assert_eq!(executable(messages, "demo"), None);
    }
}
