//! Programs that once differed: a line of JSON each, so that they mean the same however programs are made up.

use std::io::Write;

use netplug_tests::cast::Family;

use crate::program::Program;

/// Where they are.
pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/differential/regressions.jsonl");

/// Those of `family`.
pub fn of(family: Family) -> Vec<Program> {
    let text = std::fs::read_to_string(PATH).expect("the file is part of the test");
    let parse = |line: &str| serde_json::from_str::<Program>(line).expect("a line is a program");
    text.lines().map(parse).filter(|program| program.family() == family).collect()
}

/// Adds one, if it is not there.
pub fn keep(program: &Program) {
    let line = line(program);
    let text = std::fs::read_to_string(PATH).unwrap_or_default();
    if text.lines().all(|known| known != line) {
        let file = std::fs::File::options().append(true).create(true).open(PATH);
        // Where the sources cannot be written to, the message has it.
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
}

/// A program as it is kept.
pub fn line(program: &Program) -> String {
    serde_json::to_string(program).expect("a program is plain data")
}
