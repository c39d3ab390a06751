//! Builds the eBPF object and hands it to the binary as `$OUT_DIR/netplug.bpf.o`.
//!
//! `NETPLUG_EBPF_OBJECT` names a ready one instead. The flags and their reasons:
//! - `target-cpu=v3`: atomics and 32-bit operations (Linux 5.12)
//! - `--btf`, `debuginfo=2`: names and source lines for `bpftool`
//! - `--disable-expand-memcpy-in-order`: without it every small copy becomes a loop over bytes that runs per packet
//! - `--remap-path-prefix`: the object does not depend on where it was built

use std::env;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{TARGET, Toolchain, clean};

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={error}");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let repository = manifest.parent().ok_or("the crate has no parent folder")?.to_owned();
    let out = PathBuf::from(variable("OUT_DIR")?);
    let object = out.join("netplug.bpf.o");
    for name in ["NETPLUG_EBPF_OBJECT", "NETPLUG_EBPF_CARGO", "NETPLUG_EBPF_RUSTC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in [
        "netplug-ebpf/src",
        "netplug-ebpf/Cargo.toml",
        "netplug-ebpf/Cargo.lock",
        "netplug-common",
        "xtask/src/toolchain.rs",
    ] {
        println!("cargo::rerun-if-changed={}", repository.join(path).display());
    }
    if let Some(ready) = env::var_os("NETPLUG_EBPF_OBJECT") {
        let fail = |error| {
            format!("cannot copy {}, which NETPLUG_EBPF_OBJECT names: {error}", ready.display())
        };
        std::fs::copy(&ready, &object).map_err(fail)?;
        return tell_digest(&object);
    }
    let toolchain = toolchain::find().map_err(|missing| {
        format!("the eBPF object cannot be built: {missing} is missing; run `cargo xtask setup`")
    })?;
    let built = compile(&toolchain, &repository, &out)?;
    std::fs::copy(&built, &object)
        .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    refuse_panics(&object)?;
    // Debug sections go; BTF with names and lines stays.
    run(Command::new(tool("llvm-strip")?).arg("-g").arg(&object))?;
    tell_digest(&object)
}

/// By which the binary tells whether the programs that are loaded are its own.
fn tell_digest(object: &Path) -> Result<(), String> {
    let bytes = std::fs::read(object)
        .map_err(|error| format!("cannot read {}: {error}", object.display()))?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    println!("cargo::rustc-env=NETPLUG_OBJECT_DIGEST={:016x}", hasher.finish());
    Ok(())
}

fn compile(toolchain: &Toolchain, repository: &Path, out: &Path) -> Result<PathBuf, String> {
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    let target = out.join("ebpf");
    let mut flags = vec![
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".into(),
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
        "-Ctarget-cpu=v3".into(),
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        format!("--remap-path-prefix={}=netplug", repository.display()),
    ];
    let home = env::var("HOME").unwrap_or_default();
    let cargo_home = env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    flags.push(format!("--remap-path-prefix={cargo_home}=cargo"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path =
        env::join_paths(std::iter::once(toolchain.linker.clone()).chain(env::split_paths(&path)))
            .map_err(|error| error.to_string())?;
    let mut command = Command::new(&toolchain.compiler.cargo);
    clean(&mut command)
        .current_dir(repository.join("netplug-ebpf"))
        .args([
            "build",
            "--release",
            "--locked",
            "--bin",
            "netplug",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target)
        .env("PATH", path)
        .env("RUSTC", &toolchain.compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if env::var_os("CARGO_FEATURE_NARROW_HASH").is_some() {
        command.args(["--features", "narrow-hash"]);
    }
    if toolchain.compiler.builds_core {
        command.arg("-Zbuild-std=core");
    }
    run(&mut command)?;
    Ok(target.join(TARGET).join("release/netplug"))
}

/// A panic that is left in a program is found by the verifier only, without a line.
fn refuse_panics(object: &Path) -> Result<(), String> {
    let output =
        Command::new(tool("llvm-nm")?).arg(object).output().map_err(|error| error.to_string())?;
    let symbols = String::from_utf8_lossy(&output.stdout).into_owned();
    match symbols.lines().find(|line| line.contains("panick")) {
        Some(symbol) => Err(format!(
            "a panic is left in the programs: {symbol}; index by `.get()`, divide by `checked_div`"
        )),
        None => Ok(()),
    }
}

fn tool(name: &str) -> Result<PathBuf, String> {
    toolchain::llvm(name)
        .ok_or_else(|| format!("{name} of LLVM 22 is missing; run `cargo xtask setup`"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set; build by cargo"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    errors.lines().for_each(|line| println!("cargo::warning={line}"));
    Err(format!("{} failed with {}", command.get_program().display(), output.status))
}
