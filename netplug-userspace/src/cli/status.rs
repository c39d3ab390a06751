//! `netplug status`: the node at a glance.

use netplug_common::maps::config::{LEARN_TCP, MASQUERADE, STEERING_ALWAYS, STEERING_DIRECT};
use serde_json::json as object;

use super::interface;
use super::output::{Format, json, line};
use crate::datapath::{Datapath, directory};
use crate::node::Netlink;
use crate::settings::adopted::{self, Standing};

pub fn run(format: Format) -> anyhow::Result<()> {
    let Some(datapath) = Datapath::open()? else {
        return match format {
            Format::Json => json("loaded", false.into()),
            Format::Table => {
                line("not loaded; the first pod's ADD loads the programs, or `netplug load`")
            }
        };
    };
    let config = datapath.config()?;
    let steering = match config.steering {
        STEERING_ALWAYS => "always",
        STEERING_DIRECT => "direct",
        _ => "learn",
    };
    let uplinks = datapath.uplinks()?;
    let exempt = datapath.non_masquerade()?;
    let endpoints = datapath.endpoints()?.len();
    let adopted = adopted::show(&Netlink::open()?, &datapath)?;
    let totals = datapath.totals()?;
    let dropped: u64 =
        datapath.counters()?.iter().filter(|count| count.drop).map(|count| count.packets).sum();
    let masquerade = config.flags & MASQUERADE != 0;
    let learns_tcp = config.flags & LEARN_TCP != 0;
    let revisit = config.revisit_jiffies as f64 / config.jiffies_per_second.max(1) as f64;
    if format == Format::Json {
        let object = object!({
            "loaded": true, "pinned_under": directory(), "steering": steering, "learns_tcp": learns_tcp,
            "revisit_seconds": revisit, "epoch": config.epoch, "masquerade": masquerade,
            "non_masquerade_cidrs": exempt, "endpoints": endpoints, "flows": totals.flows,
            "mappings": totals.mappings, "dropped_packets": dropped,
            "uplinks": uplinks.iter().map(|(ifindex, addresses)| {
                object!({"ifindex": ifindex, "interface": interface(*ifindex), "addresses": addresses})
            }).collect::<Vec<_>>(),
            "adopted": adopted.iter().map(|Standing { bridge, is_there, ports }| {
                let ports: Vec<_> = ports.iter().map(|port| interface(*port)).collect();
                object!({"bridge": bridge, "is_there": is_there, "ports": ports})
            }).collect::<Vec<_>>(),
        });
        return match object {
            serde_json::Value::Object(object) => super::output::json_object(object),
            _ => Ok(()),
        };
    }
    line(&format!("loaded      yes, pinned under {}", directory().display()))?;
    line(&format!("steering    {steering}, flows ask again after {revisit} s"))?;
    if !learns_tcp {
        line(
            "            TCP is not learned: nf_conntrack_tcp_be_liberal or _ignore_invalid_rst is not set here",
        )?;
    }
    for (ifindex, addresses) in &uplinks {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        line(&format!("uplink      {} as {}", interface(*ifindex), addresses.join(", ")))?;
    }
    if uplinks.is_empty() {
        line(
            "uplink      none: there was no default route at the last ADD, and `uplinks` names none; `netplug watch` would see one come",
        )?;
    }
    let exempt: Vec<_> = exempt.iter().map(ToString::to_string).collect();
    line(&format!(
        "masquerade  {}",
        if masquerade { format!("yes, but to {}", exempt.join(", ")) } else { "no".into() }
    ))?;
    line(&format!("endpoints   {endpoints}"))?;
    for Standing { bridge, is_there, ports } in &adopted {
        let ports: Vec<_> = ports.iter().map(|port| interface(*port)).collect();
        let ports = match ports.as_slice() {
            _ if !is_there => "is not there".into(),
            [] => "no ports".into(),
            ports => ports.join(", "),
        };
        line(&format!("adopted     {bridge}: {ports}"))?;
    }
    line(&format!("flows       {}", totals.flows))?;
    line(&format!("mappings    {}", totals.mappings))?;
    line(&format!("dropped     {dropped} packets, see `netplug counters`"))
}
