//! `demo`: a node comes to life and every way that a pod's traffic can go is shown. `cargo xtask demo` builds and
//! runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    netplug_tests::demo::main()
}
