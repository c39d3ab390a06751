//! From a pod network's configuration to the node's: datapath settings, sysctls, uplinks.

use std::time::Duration;

use ipnetwork::IpNetwork;

use super::Error;
use super::config::{self, Config};
use crate::datapath::{Attach, Datapath, Settings, Steering};
use crate::node::link::Link;
use crate::node::masquerade::Switches;
use crate::node::state::{State, UplinkChoice};
use crate::node::{self, Netlink, state, sysctl, uplink};
use crate::settings::uplinks::{self, Wanted};
use crate::warning::warn;

/// How programs are attached.
pub(super) fn attach(config: &Config) -> Attach {
    match config.attach {
        config::Attach::Auto => Attach::Auto,
        config::Attach::Tcx => Attach::Tcx,
        config::Attach::Clsact => Attach::Clsact,
    }
}

/// Looks whether the uplinks that the configuration names are there, before anything is changed; warns of what is none, and of
/// one that is the pods' `bridge`.
pub(super) fn check_uplinks(
    netlink: &Netlink,
    config: &Config,
    bridge: Option<&str>,
) -> Result<(), Error> {
    let (found, without_ethernet) = uplink::find(netlink, config.uplinks.as_deref())?;
    for name in &without_ethernet {
        warn(format_args!("{name} has no Ethernet header; what leaves by it is left to the host"));
    }
    if found.is_empty() && without_ethernet.is_empty() {
        warn("no uplink: there is no default route, and `uplinks` names none");
    }
    if let Some(bridge) = bridge.filter(|bridge| found.iter().any(|link| link.name == **bridge)) {
        warn(format_args!(
            "{bridge} is the node's way out, and the pods' bridge: what comes in there for a pod goes past the host, which sees no \
             answer to a pod's call of a service; give pods a bridge of their own"
        ));
    }
    Ok(())
}

/// What a network's configuration means for the node.
pub(super) struct Network<'a> {
    pub(super) name: &'a str,
    /// Where its pods are; never masqueraded to.
    pub(super) pods: &'a [IpNetwork],
    /// The device that packets are routed back out of.
    pub(super) bridge: Option<&'a Link>,
    /// Where there is none: the pod's host end.
    pub(super) routed: Option<&'a Link>,
    /// The bridge's addresses that netplug has seen to.
    pub(super) gateways: &'a [IpNetwork],
}

/// The datapath, loaded where that is due. Nobody unloads for as long as it is kept.
pub(super) fn load(config: &Config) -> Result<Datapath, Error> {
    let flow_cache = config.flow_cache.unwrap_or(netplug_common::maps::FLOWS);
    Ok(Datapath::open_or_load(flow_cache)?)
}

/// Has the node forward what pods send, and not tell them of shorter ways.
pub(super) fn forward(network: &Network<'_>) -> Result<(), Error> {
    state::with(|state| {
        let ipv6 = network.pods.iter().any(IpNetwork::is_ipv6);
        Ok(sysctl::route_back(state, network.bridge, network.routed, ipv6)?)
    })
}

/// Has the configuration count for the whole node: tells the datapath its settings and uplinks, and conntrack how to bear with
/// them. Called once all else that may be refused has been done: what other pods had by the settings before, such as their
/// mappings, no undo brings back.
pub(super) fn apply(
    netlink: &Netlink,
    datapath: &Datapath,
    config: &Config,
    network: &Network<'_>,
) -> Result<(), Error> {
    let revisit = config.revisit()?;
    let masquerade = config.masquerade()?;
    let switches = Switches {
        on: masquerade.on,
        link_local: masquerade.link_local,
        link_local_ipv6: masquerade.link_local_ipv6,
    };
    let attach = attach(config);
    // What all networks ask is added up and written before another adds its own.
    state::with(|state| {
        let mut wishes = state.masquerade().clone();
        wishes.ask(network.name, masquerade.non_masquerade, network.pods, switches);
        // Found again: since the ADD began they may have changed, and been written by who watches.
        let kept = match &config.uplinks {
            Some(_) => None,
            None => uplinks::still_named(netlink, state.uplinks())?,
        };
        let still = kept.as_deref().map(|names| uplinks::there(netlink, names)).transpose()?;
        let wanted = Wanted {
            named: config.uplinks.as_deref().or(still.as_deref()),
            were_named: state.uplinks().were_named(),
            pods: wishes.pods().collect(),
        };
        let found = uplinks::find(netlink, datapath, wanted)?;
        let settings = Settings {
            steering: match config.steering {
                config::Steering::Learn => Steering::Learn,
                config::Steering::Always => Steering::Always,
                config::Steering::Direct => Steering::Direct,
            },
            masquerade: wishes.outcome().into(),
            uplinks: found,
            revisit,
            lifetimes: config.timeouts.lifetimes(),
            attach,
            local_ports: local_ports()?,
        };
        let choice =
            UplinkChoice { named: config.uplinks.clone(), kept, attach: attach.name().into() };
        let prepare = |state: &State| {
            state.prepare(|after| {
                after.ask_masquerade(wishes.clone());
                after.want_uplinks(choice.clone());
                if let Some(bridge) = network.bridge {
                    after.settle(bridge, network.gateways);
                }
            })
        };
        // Whether there is room for it, before anything counts.
        drop(prepare(state)?);
        let accepted = datapath.accept(&settings)?;
        uplinks::forward(netlink, state, &settings.uplinks);
        // Until flows ask by the new time, and from when they do: conntrack bears with the longer of the two.
        bear_with_flows_that_ask(state, revisit.max(datapath.revisit()?))?;
        let learns_tcp = let_tcp_be_learned(state)?;
        // What is refused is not kept, so that it is no other network's burden.
        let prepared = prepare(state)?;
        accepted.tell(learns_tcp)?;
        state.keep(prepared)?;
        // All counts by now, and conntrack bears with it, longer than it need.
        if let Err(error) = bear_with_flows_that_ask(state, revisit) {
            warn(error.whole());
        }
        Ok(())
    })
}

/// Has conntrack bear with flows that ask the host again after `revisit`: a learned one's packets refresh its timeouts once in
/// that time only.
fn bear_with_flows_that_ask(state: &mut State, revisit: Duration) -> Result<(), Error> {
    for timeout in [
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
        "nf_conntrack_tcp_timeout_close_wait",
        "nf_conntrack_tcp_timeout_fin_wait",
        "nf_conntrack_tcp_timeout_last_ack",
    ] {
        let name = format!("net/netfilter/{timeout}");
        tolerate(sysctl::stretch(state, &name, revisit.as_secs() + 1))?;
    }
    Ok(())
}

/// Has conntrack bear with connections of which it sees a part only; whether all of that could be set.
/// - without `be_liberal` and `ignore_invalid_rst`, their packets are INVALID, which kube-proxy drops
/// - it never sees the acknowledgement of what the server said first, and would forget the connection after
///   `timeout_unacknowledged`, 300 s, of silence instead of `timeout_established`
fn let_tcp_be_learned(state: &mut State) -> Result<bool, Error> {
    const ESTABLISHED: &str = "net/netfilter/nf_conntrack_tcp_timeout_established";
    let Some(established) = sysctl::get(ESTABLISHED)? else { return Ok(false) };
    let mut all = true;
    for (name, value) in [
        ("tcp_be_liberal", "1"),
        ("tcp_ignore_invalid_rst", "1"),
        ("tcp_timeout_unacknowledged", established.as_str()),
    ] {
        let name = format!("net/netfilter/nf_conntrack_{name}");
        all &= tolerate(sysctl::ensure(state, &name, value))?;
    }
    Ok(all)
}

/// A sysctl that cannot be written is no reason to fail where netplug can do without.
fn tolerate(result: Result<bool, node::Error>) -> Result<bool, Error> {
    match result {
        Err(error @ node::Error::Sysctl { .. }) => {
            warn(Error::from(error).whole());
            Ok(false)
        }
        result => Ok(result?),
    }
}

fn local_ports() -> Result<Option<(u16, u16)>, Error> {
    let Some(range) = sysctl::get("net/ipv4/ip_local_port_range")? else { return Ok(None) };
    let mut ends = range.split_whitespace().filter_map(|end| end.parse().ok());
    Ok(ends.next().zip(ends.next()))
}
