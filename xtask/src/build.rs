//! Build the eBPF object and the binary. The binary is static: it starts faster, once for each pod, and does not ask what
//! libc the host has.

use std::path::PathBuf;

use anyhow::Context;

use crate::process::{built, cargo, repository};
use crate::setup;

/// Builds, and returns where the binary is.
pub fn run() -> anyhow::Result<PathBuf> {
    build(&[])
}

/// The same with hashes of 8 bits, which flows share all the time; in a folder of its own.
pub fn run_with_narrow_hash() -> anyhow::Result<PathBuf> {
    let folder = repository().join("target/narrow-hash");
    build(&["--features", "narrow-hash", "--target-dir", &folder.to_string_lossy()])
}

fn build(more: &[&str]) -> anyhow::Result<PathBuf> {
    setup::to_build()?;
    let target = host()?;
    let mut command = cargo();
    command
        .args(["build", "--quiet", "--release", "--locked", "--package", "netplug-userspace"])
        .args(["--target", &target])
        .args(more)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    built(&mut command, "netplug")
}

/// Builds, and says where the binary is.
pub fn show() -> anyhow::Result<()> {
    let binary = run()?;
    let length = std::fs::metadata(&binary)
        .with_context(|| format!("{} is not there", binary.display()))?
        .len();
    println!("{} ({:.1} MiB)", binary.display(), length as f64 / 1_048_576.0);
    Ok(())
}

/// The target that this toolchain compiles for by itself. Named, so that build scripts and macros are not made static too.
fn host() -> anyhow::Result<String> {
    let output =
        std::process::Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host =
        text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc tells no host")?;
    Ok(host.to_owned())
}
