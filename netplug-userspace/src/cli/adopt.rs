//! `netplug adopt`, `netplug release`: steer the ports of a bridge that netplug did not make, and no more so.

use serde_json::json as object;

use super::output::{Format, json, line};
use crate::node::Netlink;
use crate::node::notices::Watching;
use crate::settings::adopted::{self, Adopted, Released};

pub fn run(format: Format, bridge: &str) -> anyhow::Result<()> {
    let Adopted { ports, left } = adopted::adopt(&Netlink::open()?, bridge)?;
    let is_watched = Watching::is_anybody()?;
    if format == Format::Json {
        let left: Vec<_> =
            left.iter().map(|(port, reason)| object!({"port": port, "reason": reason})).collect();
        let adopted =
            object!({"bridge": bridge, "ports": ports, "left_alone": left, "watched": is_watched});
        return json("adopted", adopted);
    }
    line(&format!("{bridge} is adopted; steered: {}", listed(&ports)))?;
    for (port, reason) in &left {
        line(&format!("left alone: {port}, {reason}"))?;
    }
    if !is_watched {
        line(&format!(
            "nobody watches: ports that come later are steered from the next `netplug adopt {bridge}`, or once `netplug watch` runs"
        ))?;
    }
    Ok(())
}

pub fn release(format: Format, bridge: &str) -> anyhow::Result<()> {
    let released = adopted::release(&Netlink::open()?, bridge)?;
    if format == Format::Json {
        let released = released.map(|Released { ports, restored }| {
            object!({"bridge": bridge, "ports": ports, "restored": restored})
        });
        return json("released", released.into());
    }
    let Some(Released { ports, restored }) = released else {
        return line(&format!("{bridge} was not adopted"));
    };
    line(&format!("{bridge} is released; steered no more: {}", listed(&ports)))?;
    restored.iter().try_for_each(|done| line(done))
}

fn listed(ports: &[String]) -> String {
    if ports.is_empty() { "no port".into() } else { ports.join(", ") }
}
