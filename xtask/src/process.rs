//! Child processes: the repository's folder, and failures as sentences.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

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
