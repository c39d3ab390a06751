//! `netplug promote`: move settled endpoints from clsact to TCX.

use super::output::{Format, json, line};
use crate::datapath::Datapath;

pub fn run(format: Format, datapath: &Datapath) -> anyhow::Result<()> {
    let moved = datapath.promote()?;
    match format {
        Format::Json => json("promoted", moved.into()),
        Format::Table => line(&format!("{moved} endpoints moved to TCX")),
    }
}
