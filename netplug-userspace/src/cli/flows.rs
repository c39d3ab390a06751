//! `netplug flows`: what the flow cache knows.

use super::interface;
use super::output::{Format, json, table};
use crate::datapath::Datapath;
use crate::protocol;

pub fn run(format: Format, datapath: &Datapath) -> anyhow::Result<()> {
    let flows = datapath.flows()?;
    if format == Format::Json {
        return json("flows", serde_json::to_value(flows)?);
    }
    let rows = flows.into_iter().map(|flow| {
        let left = if flow.kind == "translated" {
            format!("{} > {}", flow.left_source, flow.left_destination)
        } else {
            "as it came".into()
        };
        [
            protocol::name(flow.protocol),
            format!("{} > {}", flow.source, flow.destination),
            interface(flow.entered_by),
            left,
            interface(flow.leaves_by),
            flow.kind.into(),
            if flow.live { "yes" } else { "void" }.into(),
        ]
    });
    table(["PROTO", "ENTERS AS", "BY", "LEAVES AS", "BY", "KIND", "LIVE"], rows)
}
