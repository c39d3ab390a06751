//! What was observed, in words, and how two of it are compared.

use std::fmt::Write;

/// Lines in the order of their steps.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Observed(Vec<String>);

impl Observed {
    /// Writes a line down.
    pub fn note(&mut self, line: String) {
        self.0.push(line);
    }

    /// Whether a client found its own port still in use by an older connection of its: when that is over is a matter of
    /// time in its own kernel, which no NAT has a part in.
    pub fn met_its_own_past(&self) -> bool {
        self.0.iter().any(|line| line.contains("Cannot assign requested address"))
    }
}

/// Both, line by line; what differs has a mark before it.
pub fn side_by_side(left: &Observed, right: &Observed) -> String {
    let mut text = String::new();
    for index in 0..left.0.len().max(right.0.len()) {
        let line = |of: &Observed| of.0.get(index).cloned().unwrap_or_else(|| "nothing".into());
        let (left, right) = (line(left), line(right));
        let result = if left == right {
            writeln!(text, "    {left}")
        } else {
            writeln!(text, "  ! {left}\n  | {right}")
        };
        result.expect("a String takes all");
    }
    text
}
