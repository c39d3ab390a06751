//! From a pod network's configuration to the node's: datapath settings, sysctls, uplinks.

use ipnetwork::IpNetwork;

use super::Error;
use super::config::{self, Config, Masquerade};
use crate::datapath::{Attach, Datapath, Settings, Steering};
use crate::node::{Netlink, state, sysctl, uplink};

/// kubenet's default for `--non-masquerade-cidr`, and its like for IPv6 (RFC 4193).
const NON_MASQUERADE: [&str; 2] = ["10.0.0.0/8", "fc00::/7"];

/// What the datapath is told. `pod_networks` are never masqueraded.
pub(super) fn datapath(config: &Config, pod_networks: &[IpNetwork]) -> Result<Settings, Error> {
    let (masquerade, mut non_masquerade) = match config.masquerade()? {
        Masquerade::Off => (false, Vec::new()),
        Masquerade::On => (true, defaults()?),
        Masquerade::Except(networks) => (true, networks),
    };
    non_masquerade.extend(pod_networks);
    Ok(Settings {
        steering: match config.steering {
            config::Steering::Learn => Steering::Learn,
            config::Steering::Always => Steering::Always,
            config::Steering::Direct => Steering::Direct,
        },
        masquerade,
        non_masquerade,
        uplinks: config.uplinks.clone(),
        revisit: config.revisit()?,
        flow_cache: config.flow_cache.unwrap_or(netplug_common::maps::FLOWS),
        attach: attach(config),
    })
}

/// How programs are attached.
pub(super) fn attach(config: &Config) -> Attach {
    match config.attach {
        config::Attach::Auto => Attach::Auto,
        config::Attach::Tcx => Attach::Tcx,
        config::Attach::Clsact => Attach::Clsact,
    }
}

fn defaults() -> Result<Vec<IpNetwork>, Error> {
    NON_MASQUERADE
        .iter()
        .map(|cidr| cidr.parse().map_err(|error| Error::config("masquerade", error)))
        .collect()
}

/// Sets the node's sysctls, loads the datapath where that is due, and makes the uplinks known.
/// `bridge`: the device that packets are routed back out of.
pub(super) fn prepare_node(
    netlink: &Netlink,
    config: &Config,
    pod_networks: &[IpNetwork],
    bridge: Option<&str>,
) -> Result<Datapath, Error> {
    let (uplinks, without_ethernet) = uplink::find(netlink, config.uplinks.as_deref())?;
    for name in without_ethernet {
        eprintln!(
            "netplug: warning: {name} has no Ethernet header; what leaves by it is left to the host"
        );
    }
    if uplinks.is_empty() {
        eprintln!(
            "netplug: warning: no uplink: there is no default route, and `uplinks` names none"
        );
    }
    let learns_tcp = state::with(|state| {
        if let Some(bridge) = bridge {
            sysctl::ensure(state, &format!("net/ipv4/conf/{bridge}/send_redirects"), "0")?;
        }
        // The kernel sends redirects if either of `all` and the device says so.
        sysctl::ensure(state, "net/ipv4/conf/all/send_redirects", "0")?;
        sysctl::ensure(state, "net/ipv4/ip_forward", "1")?;
        if pod_networks.iter().any(IpNetwork::is_ipv6) {
            // A forwarding host forgets the routes that it learned by router advertisement, unless this is 2
            // (Documentation/networking/ip-sysctl.rst, accept_ra).
            for uplink in &uplinks {
                let accept = format!("net/ipv6/conf/{}/accept_ra", uplink.name);
                if sysctl::get(&accept)?.as_deref() == Some("1") {
                    sysctl::ensure(state, &accept, "2")?;
                }
            }
            sysctl::ensure(state, "net/ipv6/conf/all/forwarding", "1")?;
        }
        let liberal = sysctl::ensure(state, "net/netfilter/nf_conntrack_tcp_be_liberal", "1")?;
        let resets =
            sysctl::ensure(state, "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1")?;
        Ok::<_, Error>(liberal && resets)
    })?;
    let settings = datapath(config, pod_networks)?;
    let datapath = Datapath::open_or_load(&settings)?;
    datapath.set_tcp_learning(learns_tcp)?;
    if let Some(range) = sysctl::get("net/ipv4/ip_local_port_range")? {
        let mut ends = range.split_whitespace().filter_map(|end| end.parse().ok());
        if let (Some(first), Some(last)) = (ends.next(), ends.next()) {
            datapath.set_local_ports(first, last)?;
        }
    }
    datapath.set_uplinks(&uplinks, settings.attach)?;
    Ok(datapath)
}
