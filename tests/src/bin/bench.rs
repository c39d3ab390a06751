//! `bench`: what netplug costs beside what it replaces. `cargo xtask bench` builds and runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    netplug_tests::bench::main()
}
