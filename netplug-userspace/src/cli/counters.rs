//! `netplug counters`: which way packets went.

use super::output::{Format, json, table};
use crate::datapath::Datapath;

pub fn run(format: Format, datapath: &Datapath) -> anyhow::Result<()> {
    let counters = datapath.counters()?;
    if format == Format::Json {
        return json("counters", serde_json::to_value(counters)?);
    }
    let rows = counters.into_iter().filter(|count| count.packets > 0 || !count.drop).map(|count| {
        let way = if count.drop { "drop" } else { "" };
        [
            count.name.into(),
            count.packets.to_string(),
            count.bytes.to_string(),
            way.into(),
            count.meaning.into(),
        ]
    });
    table(["COUNTER", "PACKETS", "BYTES", "", "MEANING"], rows)
}
