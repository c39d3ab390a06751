//! Which compiler and linker build the eBPF object. Compiled into xtask, which installs them, and into
//! `netplug-userspace/build.rs`, which uses them: one place decides.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target without an operating system, little endian.
pub const TARGET: &str = "bpfel-unknown-none";
/// The linker's version that the project is verified with.
pub const LINKER_VERSION: &str = "0.13.0";

/// A cargo and rustc that can compile `core` for [`TARGET`].
pub struct Compiler {
    /// The cargo to call.
    pub cargo: PathBuf,
    /// The rustc that it is to call.
    pub rustc: PathBuf,
    /// Whether `core` is to be built from rust-src.
    pub builds_core: bool,
}

/// All that is needed to build the object.
pub struct Toolchain {
    /// Cargo and rustc.
    pub compiler: Compiler,
    /// The folder of bpf-linker.
    pub linker: PathBuf,
}

/// Finds the toolchain; `Err` names what is missing.
pub fn find() -> Result<Toolchain, String> {
    let compiler = compiler().ok_or("a Rust compiler with `core` for bpfel-unknown-none")?;
    let linker = linker().ok_or_else(|| format!("bpf-linker {LINKER_VERSION}"))?;
    Ok(Toolchain { compiler, linker })
}

/// In this order: the one that NETPLUG_EBPF_CARGO and NETPLUG_EBPF_RUSTC name; Debian's, which has `core` for the target
/// precompiled; a nightly with rust-src.
pub fn compiler() -> Option<Compiler> {
    if let (Some(cargo), Some(rustc)) =
        (env::var_os("NETPLUG_EBPF_CARGO"), env::var_os("NETPLUG_EBPF_RUSTC"))
    {
        let rustc = PathBuf::from(rustc);
        let builds_core = !has_core(&rustc);
        return Some(Compiler { cargo: cargo.into(), rustc, builds_core });
    }
    let debian = Path::new("/usr/bin/rustc");
    if has_core(debian) {
        return Some(Compiler {
            cargo: "/usr/bin/cargo".into(),
            rustc: debian.into(),
            builds_core: false,
        });
    }
    let which = |tool: &str| {
        let output = clean(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]))
            .output()
            .ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        (output.status.success() && path.exists()).then_some(path)
    };
    let (cargo, rustc) = (which("cargo")?, which("rustc")?);
    let source = print(&rustc, &["--print", "sysroot"])?;
    let has_source = Path::new(&source).join("lib/rustlib/src/rust/library/core").exists();
    has_source.then_some(Compiler { cargo, rustc, builds_core: true })
}

/// Where xtask installs bpf-linker: outside of the tree, so that every checkout shares it.
pub fn linker_root() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || {
        PathBuf::from(env::var_os("HOME").unwrap_or_else(|| OsString::from("/root"))).join(".cache")
    };
    cache.unwrap_or_else(home).join("netplug").join(format!("bpf-linker-{LINKER_VERSION}"))
}

fn linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(linker_root().join("bin")).chain(env::split_paths(&path));
    let is_good = |folder: &PathBuf| {
        print(&folder.join("bpf-linker"), &["--version"]).is_some_and(|text| {
            text.split_whitespace().last().is_some_and(|version| version.starts_with("0.13"))
        })
    };
    folders.into_iter().find(is_good)
}

/// A tool of the LLVM that bpf-linker is built with.
pub fn llvm(tool: &str) -> Option<PathBuf> {
    let debian = Path::new("/usr/lib/llvm-22/bin").join(tool);
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(debian)
        .chain(env::split_paths(&path).map(|folder| folder.join(tool)))
        .find(|path| path.exists())
}

fn has_core(rustc: &Path) -> bool {
    let Some(folder) = print(rustc, &["--print", "target-libdir", "--target", TARGET]) else {
        return false;
    };
    std::fs::read_dir(folder).is_ok_and(|mut files| {
        files.any(|file| {
            file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
        })
    })
}

fn print(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = clean(Command::new(program).args(arguments)).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Takes away what one cargo tells its children, which would confuse another. What rustup is told stays: it decides
/// which toolchain runs, and whether anything may be fetched.
pub fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_cargos = text.starts_with("CARGO") && text != "CARGO_HOME";
        if is_cargos
            || ["RUSTC", "RUSTFLAGS", "RUSTDOC"].iter().any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
    command
}
