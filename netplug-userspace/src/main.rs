//! The `netplug` binary, with three faces: a CNI plugin where the runtime says so by `CNI_COMMAND`, the loopback plugin
//! under that name, and else the command line.

use std::env;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if env::var_os("CNI_COMMAND").is_none() {
        return netplug::cli::run();
    }
    netplug::cni::answer_panics();
    let name = env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "loopback") {
        netplug::cni::run_loopback()
    } else {
        netplug::cni::run()
    }
}
