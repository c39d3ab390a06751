//! What people are told on stderr that is no reason to fail.

use std::fmt::Display;
use std::io::{self, Write};

/// Warns. Where nobody can be told (a full disk, a reader that went away) that is no reason to fail either, as `eprintln!`
/// would by its panic: what is warned of goes on.
pub(crate) fn warn(text: impl Display) {
    let _ = writeln!(io::stderr(), "netplug: warning: {text}");
}
