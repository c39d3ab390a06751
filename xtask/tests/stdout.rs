//! What xtask does before a verb must not show on stdout: `cargo xtask demo --json | jq` reads it.

use std::process::Command;

#[test]
fn a_verbs_stdout_is_its_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(["load", "--help"]).output();
    let output = output.expect("xtask runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.starts_with("Load"), "{stdout}");
}
