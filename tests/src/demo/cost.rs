//! What a packet costs, beside a bare veth pair and today's node.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bench::lanes::Datagrams;
use crate::bench::roads::{Bare, Road};
use crate::bench::{Lane, Outcome, Pace, race};
use crate::cast::Family;

/// Long enough for a median, short enough for a demo.
const PACE: Pace = Pace { slice: Duration::from_millis(300), rounds: 9 };

/// What one way costs.
pub(super) struct Cost {
    /// Its field in the JSON.
    pub(super) key: &'static str,
    work: &'static str,
    nanoseconds: Option<f64>,
    ratio: Option<f64>,
    spread: Option<f64>,
}

impl Cost {
    /// As one JSON object; what a busy machine spoiled is null.
    pub(super) fn json(&self) -> Value {
        let round =
            |value: Option<f64>, unit: f64| value.map(|value| (value * unit).round() / unit);
        json!({
            "ns_per_packet": round(self.nanoseconds, 1.0),
            "times_bare": round(self.ratio, 1000.0),
            "spread": round(self.spread, 1000.0),
            "spoiled": self.ratio.is_none(),
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.nanoseconds, self.ratio, self.spread) {
            (Some(nanoseconds), Some(ratio), Some(spread)) => {
                write!(
                    f,
                    "{:<56} {nanoseconds:>6.0} ns  {ratio:.2} × bare (± {spread:.2})",
                    self.work
                )
            }
            _ => write!(f, "{:<56} spoiled: the machine was busy with other work", self.work),
        }
    }
}

/// The rows: lane by lane, with the key that each has in the JSON.
const ROWS: [(&str, &str); 6] = [
    ("bare", "a bare veth pair"),
    ("bare_again", "the same once more: what the figures can tell apart"),
    ("netplug_pod_to_pod", "netplug, pod → pod"),
    ("netplug_pod_to_service", "netplug, pod → service → pod"),
    ("today_pod_to_pod", "bridge + br_netfilter, pod → pod"),
    ("today_pod_to_service", "bridge + br_netfilter + kube-proxy, pod → service → pod"),
];

/// Measures them all, in turn.
pub(super) fn measure() -> anyhow::Result<Vec<Cost>> {
    let family = Family::V4;
    let (bare, ours, today) = (Bare::new(), Road::netplug(0), Road::today(0));
    let at = bare.at(family);
    let mut again = at;
    again.set_port(at.port() + 1);
    let mut lanes: Vec<Box<dyn Lane>> = vec![
        Box::new(Datagrams::new(ROWS[0].0, &bare.client, &bare.server, at, at)?),
        Box::new(Datagrams::new(ROWS[1].0, &bare.client, &bare.server, again, again)?),
    ];
    for (road, first) in [(&ours, 2), (&today, 4)] {
        let (client, server) = (road.client.namespace(), road.server.namespace());
        let mut direct = road.at(family);
        direct.set_port(direct.port() + 1);
        lanes.push(Box::new(Datagrams::new(ROWS[first].0, client, server, direct, direct)?));
        lanes.push(Box::new(Datagrams::new(
            ROWS[first + 1].0,
            client,
            server,
            road.service(family),
            road.at(family),
        )?));
    }
    let outcomes = race(&mut lanes, PACE)?;
    Ok(ROWS.iter().zip(&outcomes).map(|(row, outcome)| cost(*row, outcome, &outcomes[0])).collect())
}

fn cost((key, work): (&'static str, &'static str), outcome: &Outcome, bare: &Outcome) -> Cost {
    Cost {
        key,
        work,
        nanoseconds: outcome.nanoseconds(),
        ratio: outcome.ratio_to(bare),
        spread: outcome.spread_to(bare),
    }
}
