//! Tables for people, JSON for scripts.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
}

/// Raised when a key of the JSON changes its meaning or goes; new keys do not raise it.
const SCHEMA: u32 = 1;

/// Prints `key`: `value` in an object with the schema's number.
pub fn json(key: &str, value: Value) -> anyhow::Result<()> {
    let mut object = Map::new();
    object.insert(key.into(), value);
    json_object(object)
}

/// Prints an object, with the schema's number added.
pub fn json_object(mut object: Map<String, Value>) -> anyhow::Result<()> {
    object.insert("schema".into(), SCHEMA.into());
    line(&serde_json::to_string(&object)?)
}

/// Prints rows under heads.
pub fn table<const N: usize>(
    heads: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in table.lines() {
        line(row.trim_end())?;
    }
    Ok(())
}

/// Prints a line. A reader that has seen enough (`| head`) is no error.
pub fn line(line: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
