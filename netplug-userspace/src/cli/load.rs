//! `netplug load`: load or replace the programs.

use super::output::{Format, json, line};
use crate::datapath::{LogLevel, directory, load, run_logger};

pub fn run(format: Format, log: LogLevel, flow_cache: u32) -> anyhow::Result<()> {
    let object = load(flow_cache, log)?;
    let directory = directory();
    match format {
        Format::Json => json("pinned_under", directory.to_string_lossy().into())?,
        Format::Table => {
            line(&format!("loaded; programs and maps are pinned under {}", directory.display()))?
        }
    }
    if let Some(object) = object {
        eprintln!(
            "what the programs tell follows; end with Ctrl-C (they go on telling until `netplug load`)"
        );
        run_logger(object)?;
    }
    Ok(())
}
