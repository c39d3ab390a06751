//! Formatting and clippy for both sides of the kernel boundary; warnings are errors.

use crate::process::{cargo, repository, succeed};
use crate::setup;

/// Fails at the first complaint.
pub fn run() -> anyhow::Result<()> {
    setup::to_build()?;
    setup::to_lint()?;
    let ebpf = repository().join("netplug-ebpf");
    succeed(cargo().args(["fmt", "--all", "--check"]))?;
    succeed(cargo().current_dir(&ebpf).args(["fmt", "--check"]))?;
    let warnings = ["--", "-D", "warnings"];
    succeed(
        cargo()
            .args(["clippy", "--quiet", "--workspace", "--all-targets", "--locked"])
            .args(warnings),
    )?;
    // On this machine's own target: clippy looks at source, and needs no `core` of another.
    succeed(cargo().current_dir(&ebpf).args(["clippy", "--quiet", "--locked"]).args(warnings))
}
