//! `netplug unload`: leave the node as it was.

use serde_json::json as object;

use super::output::{Format, json, line};
use crate::{datapath, node};

pub fn run(format: Format) -> anyhow::Result<()> {
    let pins = datapath::unload()?.len();
    let restored = node::state::restore()?;
    if format == Format::Json {
        return json("unloaded", object!({"removed_pins": pins, "restored": restored}));
    }
    if pins == 0 && restored.is_empty() {
        return line("nothing was loaded");
    }
    line(&format!("programs detached, {pins} pins removed"))?;
    restored.iter().try_for_each(|done| line(done))
}
