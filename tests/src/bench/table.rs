//! Rows as people and as scripts read them.

use serde_json::{Value, json};

use super::rows::Row;

/// A row as lines of text.
#[must_use]
pub fn text(row: &Row) -> String {
    let Some(base) = row.lanes.first() else { return String::new() };
    let mut text = format!("{}\n", row.work);
    for lane in &row.lanes {
        let figures = match (lane.nanoseconds(), lane.ratio_to(base), lane.spread_to(base)) {
            (Some(own), Some(ratio), Some(spread)) => {
                format!("{own:>10.0}   {ratio:>5.2} × {} (± {spread:.2})", base.name)
            }
            _ => "   spoiled: the machine was busy with other work".into(),
        };
        text += &format!("  {:<36}{figures}\n", lane.name);
    }
    text
}

/// A row as JSON; a spoiled figure is null.
#[must_use]
pub fn json(row: &Row) -> Value {
    let lanes: Vec<_> = row
        .lanes
        .iter()
        .map(|lane| {
            let base = &row.lanes[0];
            let round =
                |value: Option<f64>, unit: f64| value.map(|value| (value * unit).round() / unit);
            json!({
                "name": lane.name,
                "ns": round(lane.nanoseconds(), 1.0),
                "ratio": round(lane.ratio_to(base), 1000.0),
                "spread": round(lane.spread_to(base), 1000.0),
                "spoiled": lane.ratio_to(base).is_none(),
            })
        })
        .collect();
    json!({"work": row.work, "base": row.lanes.first().map(|lane| &lane.name), "lanes": lanes})
}
