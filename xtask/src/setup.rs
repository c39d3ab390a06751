//! Install what is missing, say on stderr what it is, and do nothing the second time.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::process::{cargo, succeed, succeed_silently, whole_path};
use crate::toolchain::{self, LINKER_VERSION};

/// Debian's packages to build with, each with a file that shows it to be there, or a program that is found on PATH
/// wherever it came from.
const BUILD: &[(&str, &str)] = &[
    ("gcc", "cc"),
    ("libc6-dev", "/usr/include/stdio.h"),
    ("rustc-web", "/usr/bin/rustc"),
    ("cargo-web", "/usr/bin/cargo"),
    ("llvm-22", "llvm-strip"),
];
/// Those to build bpf-linker with.
const LINKER: &[(&str, &str)] = &[
    ("llvm-22-dev", "/usr/lib/llvm-22/include/llvm-c/Core.h"),
    ("libpolly-22-dev", "/usr/lib/llvm-22/lib/libPolly.a"),
    ("libzstd-dev", "/usr/include/zstd.h"),
    ("zlib1g-dev", "/usr/include/zlib.h"),
];
/// Those that test nodes, the demo and the benchmarks run.
const NODE: &[(&str, &str)] = &[
    ("iproute2", "ip"),
    ("iptables", "iptables"),
    ("nftables", "nft"),
    ("conntrack", "conntrack"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("bpftool", "bpftool"),
    ("util-linux", "nsenter"),
    ("procps", "sysctl"),
    ("strace", "strace"),
];

/// Everything that any verb needs.
pub fn everything() -> anyhow::Result<()> {
    to_build()?;
    to_lint()?;
    to_run_nodes()
}

/// What `build` needs.
pub fn to_build() -> anyhow::Result<()> {
    let has_compiler = toolchain::compiler().is_some();
    let mut wanted = Vec::new();
    if !has_compiler {
        wanted.push(("libstd-rust-web-dev-bpf", ""));
    }
    wanted.extend(BUILD.iter().filter(|(package, _)| !has_compiler || !package.ends_with("-web")));
    if toolchain::find().is_err() {
        wanted.extend(LINKER);
    }
    install(&wanted, "to build the eBPF object")?;
    match toolchain::find() {
        Ok(_) => Ok(()),
        Err(_) if toolchain::compiler().is_none() => bail!(
            "no Rust compiler has `core` for {}; on Debian it comes with libstd-rust-web-dev-bpf, elsewhere run \
             `rustup toolchain install nightly --component rust-src`",
            toolchain::TARGET
        ),
        Err(_) => install_linker(),
    }
}

/// What `demo`, `test` and `bench` need besides.
pub fn to_run_nodes() -> anyhow::Result<()> {
    install(NODE, "to run nodes of network namespaces")
}

fn install(packages: &[(&str, &str)], why: &str) -> anyhow::Result<()> {
    let (missing, shown_by): (Vec<&str>, Vec<&str>) =
        packages.iter().filter(|(_, shown_by)| !is_there(shown_by)).copied().unzip();
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install -y {}", missing.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "missing {why}: what Debian has in the packages {}; install it by your system's means, so that these are \
             found: {}",
            missing.join(", "),
            shown_by.join(", ")
        );
    }
    if !is_root() {
        bail!("missing {why}; run as root: {command}");
    }
    eprintln!("installing {why}: {}", missing.join(", "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    succeed(apt().arg("update"))?;
    succeed_silently(apt().args(["install", "-y", "--no-install-recommends"]).args(&missing))
}

fn is_there(file_or_program: &str) -> bool {
    if file_or_program.contains('/') {
        return Path::new(file_or_program).exists();
    }
    !file_or_program.is_empty()
        && (toolchain::llvm(file_or_program).is_some()
            || std::env::split_paths(&whole_path())
                .any(|folder| folder.join(file_or_program).exists()))
}

/// What `lint` needs besides: a minimal rustup has neither.
pub fn to_lint() -> anyhow::Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let is_there = cargo()
            .args([tool, "--version"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !is_there {
            eprintln!("installing to lint: rustup's component {component}");
            succeed(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

fn install_linker() -> anyhow::Result<()> {
    let root = toolchain::linker_root();
    eprintln!("installing bpf-linker {LINKER_VERSION} into {} (about a minute)", root.display());
    let mut command = cargo();
    toolchain::clean(&mut command);
    succeed(
        command
            .current_dir("/")
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .args([
                "install",
                "--quiet",
                "bpf-linker",
                "--version",
                LINKER_VERSION,
                "--no-default-features",
            ])
            .args(["--features", "llvm-22", "--root"])
            .arg(root),
    )
}

/// The effective user is the second number of `Uid:` in /proc/self/status (proc_pid_status(5)).
fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1))
        == Some("0")
}
