//! `netplug flush`: void every cached flow.

use super::output::{Format, json, line};
use crate::datapath::Datapath;

pub fn run(format: Format, datapath: &Datapath) -> anyhow::Result<()> {
    datapath.bump_epoch()?;
    let epoch = datapath.config()?.epoch;
    match format {
        Format::Json => json("epoch", epoch.into()),
        Format::Table => {
            line("every cached flow is void; each asks the host again with its next packet")
        }
    }
}
