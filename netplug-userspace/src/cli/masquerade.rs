//! `netplug masquerade`: which packets of pods leave as the node, and how that is changed while it runs.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;
use netplug_common::maps::config::{MASQUERADE, MASQUERADE_LINK_LOCAL4, MASQUERADE_LINK_LOCAL6};
use serde_json::{Value, json as object};

use super::interface;
use super::output::{Format, json, line};
use crate::datapath::Datapath;
use crate::node::masquerade::Choice;
use crate::settings::agent_file::AgentFile;
use crate::settings::cidrs;
use crate::settings::masquerade::{Effect, choose, chosen};
use crate::warning::warn;

#[derive(Subcommand)]
pub enum Command {
    /// Whether pods' packets leave as the node, as which address, and to where they do not.
    Show,
    /// Change that at once, for the whole node and over what networks ask, until `--reset` or `netplug unload`.
    Set(Change),
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Change {
    /// Masquerade at all.
    #[arg(long, conflicts_with = "off")]
    on: bool,
    /// Masquerade nothing. Connections that are masqueraded end.
    #[arg(long)]
    off: bool,
    /// To where pods' packets leave as they are, instead of what networks name: a CIDR, `ip-masq-agent` or `kubenet`. Pods'
    /// own networks are always such. May be given several times.
    #[arg(long = "non-masquerade-cidr", value_name = "CIDR", value_parser = cidrs::parse)]
    cidrs: Vec<Vec<IpNetwork>>,
    /// Masquerade to 169.254.0.0/16, too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    masq_link_local: Option<bool>,
    /// Masquerade to fe80::/10, too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    masq_link_local_ipv6: Option<bool>,
    /// Take CIDRs and link-local options from a file of ip-masq-agent's format, once; see `netplug watch`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cidrs", "masq_link_local", "masq_link_local_ipv6"])]
    from: Option<PathBuf>,
    /// Forget what was set before, so that what networks ask counts again.
    #[arg(long)]
    reset: bool,
}

pub fn run(format: Format, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show => show(format),
        Command::Set(change) => set(format, change),
    }
}

fn show(format: Format) -> anyhow::Result<()> {
    let datapath = super::loaded()?;
    let flags = datapath.config()?.flags;
    let is_on = |flag| flags & flag != 0;
    let Choice { on, exempt, link_local, link_local_ipv6 } = chosen()?;
    let chosen: Vec<_> = [
        ("on", on.is_some()),
        ("non_masquerade_cidrs", exempt.is_some()),
        ("masq_link_local", link_local.is_some()),
        ("masq_link_local_ipv6", link_local_ipv6.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, is_chosen)| is_chosen.then_some(key))
    .collect();
    if format == Format::Json {
        let uplinks = datapath.uplinks()?.into_iter().map(|(ifindex, addresses)| {
            object!({"ifindex": ifindex, "interface": interface(ifindex), "addresses": addresses})
        });
        return json(
            "masquerade",
            object!({
                "on": is_on(MASQUERADE), "non_masquerade_cidrs": datapath.non_masquerade()?,
                "masq_link_local": is_on(MASQUERADE_LINK_LOCAL4),
                "masq_link_local_ipv6": is_on(MASQUERADE_LINK_LOCAL6),
                "uplinks": uplinks.collect::<Vec<Value>>(), "set_at_run_time": chosen,
            }),
        );
    }
    let yes = |flag| if is_on(flag) { "yes" } else { "no" };
    line(&format!("masquerade           {}", yes(MASQUERADE)))?;
    for (ifindex, addresses) in datapath.uplinks()? {
        line(&format!("as                   {} by {}", joined(&addresses), interface(ifindex)))?;
    }
    line(&format!("but not to           {}", exempt_text(&datapath)?))?;
    line(&format!("to 169.254.0.0/16    {}", yes(MASQUERADE_LINK_LOCAL4)))?;
    line(&format!("to fe80::/10         {}", yes(MASQUERADE_LINK_LOCAL6)))?;
    if !chosen.is_empty() {
        line(&format!("set at run time      {}", chosen.join(", ")))?;
    }
    Ok(())
}

fn exempt_text(datapath: &Datapath) -> anyhow::Result<String> {
    Ok(joined(&datapath.non_masquerade()?))
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn set(format: Format, change: Change) -> anyhow::Result<()> {
    let mut choice = match &change.from {
        Some(path) => {
            let file = AgentFile::read(path).context("nothing is changed")?;
            warn_of_unknown(&file);
            Choice::from(&file)
        }
        None => Choice {
            on: None,
            exempt: (!change.cidrs.is_empty()).then(|| change.cidrs.concat()),
            link_local: change.masq_link_local,
            link_local_ipv6: change.masq_link_local_ipv6,
        },
    };
    choice.on = (change.on || change.off).then_some(change.on);
    let effect = choose(|chosen| {
        if change.reset {
            *chosen = Choice::default();
        }
        chosen.and(choice);
    })?;
    match (format, effect) {
        (Format::Json, effect) => json("changed", (effect == Effect::Changed).into()),
        (_, Effect::Changed) => line("set; every flow asks again with its next packet"),
        (_, Effect::Same) => line("set; the datapath did so already"),
        (_, Effect::Later) => line("set; nothing is loaded yet, the first pod's ADD heeds it"),
    }
}

/// Tells of keys that nobody understands.
pub fn warn_of_unknown(file: &AgentFile) {
    for key in &file.unknown {
        warn(format_args!("{key} is no key of ip-masq-agent's file, and has no effect"));
    }
}
