//! `netplug nat`: the ports that masquerade holds.

use super::output::{Format, json, table};
use crate::datapath::Datapath;
use crate::protocol;

pub fn run(format: Format, datapath: &Datapath) -> anyhow::Result<()> {
    let mappings = datapath.mappings()?;
    if format == Format::Json {
        return json("mappings", serde_json::to_value(mappings)?);
    }
    let rows = mappings.into_iter().map(|mapping| {
        [
            protocol::name(mapping.protocol),
            mapping.source.to_string(),
            mapping.seen_as.to_string(),
            mapping.destination.to_string(),
            mapping.kind.into(),
            if mapping.whole { "yes" } else { "half" }.into(),
        ]
    });
    table(["PROTO", "POD", "SEEN AS", "OUTSIDE", "KIND", "WHOLE"], rows)
}
