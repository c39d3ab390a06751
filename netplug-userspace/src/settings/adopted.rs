//! Adopted bridges: those that netplug did not make and whose ports it steers all the same, knowing nothing of their addresses.
//!
//! Which they are is kept by name, since bridges come and go. What that means for the ports that there are now, `refresh`
//! finds out, for an operator or for who watches.

use super::Error;
use crate::datapath::{AdoptedPort, Datapath};
use crate::node::link::Link;
use crate::node::state::State;
use crate::node::{self, Netlink, bridge, state, sysctl};

/// What became of a bridge's ports.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Those that are steered.
    pub ports: Vec<String>,
    /// Those that are left alone, with the reason.
    pub left: Vec<(String, &'static str)>,
}

/// What a release took back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Released {
    /// Ports that are steered no more.
    pub ports: Vec<String>,
    /// What else was put back, a line each.
    pub restored: Vec<String>,
}

/// Adopts a bridge, or looks again after one that is adopted already. If it fails, nothing is left of it.
pub fn adopt(netlink: &Netlink, name: &str) -> Result<Adopted, Error> {
    // Before anything is loaded.
    state::with(|state| find(netlink, state, name).map(drop))?;
    let datapath = Datapath::open_or_load(netplug_common::maps::FLOWS)?;
    state::with(|state| {
        let bridge = find(netlink, state, name)?;
        let is_new = !state.adopted().contains(name);
        let adopted = take(netlink, &datapath, state, &bridge);
        if adopted.is_err() && is_new {
            // The first error is the one that tells. By a socket of its own: the other's may be what failed.
            let _ = Netlink::open()
                .map_err(Error::from)
                .and_then(|netlink| let_go(&netlink, &datapath, state, name));
        }
        adopted
    })
}

/// The bridge, if it can be adopted.
fn find(netlink: &Netlink, state: &State, name: &str) -> Result<Link, node::Error> {
    let refuse = |reason| node::Error::Unadoptable { bridge: name.into(), reason };
    let found = if node::link::is_name(name) { netlink.link(name)? } else { None };
    let bridge = found.ok_or_else(|| refuse("there is no such interface"))?;
    reason_against(&bridge, state).map_or(Ok(bridge), |reason| Err(refuse(reason)))
}

fn reason_against(bridge: &Link, state: &State) -> Option<&'static str> {
    if !bridge.is_bridge() {
        Some("it is not a bridge")
    } else if bridge::is_netplugs(bridge, state) {
        Some("netplug made it, and serves its pods already")
    } else if bridge.parts_vlans {
        Some(
            "it parts VLANs (vlan_filtering), and what is in another than the node's own cannot be brought before the host",
        )
    } else {
        None
    }
}

fn take(
    netlink: &Netlink,
    datapath: &Datapath,
    state: &mut State,
    bridge: &Link,
) -> Result<Adopted, Error> {
    state.adopt(&bridge.name)?;
    route_back(netlink, state, bridge)?;
    let links = netlink.links()?;
    let_strays_go(datapath, &bridges(state, &links), &links, &datapath.adopted()?)?;
    let mut adopted = Adopted::default();
    for link in links.into_iter().filter(|link| link.master == Some(bridge.index)) {
        if !link.leads_to_guests() {
            adopted.left.push((link.name, "neither a veth nor a tap"));
            continue;
        }
        match steer(netlink, datapath, bridge, &link)? {
            Steered::Yes => adopted.ports.push(link.name),
            Steered::Pods => adopted.left.push((link.name, "a pod's, which netplug serves")),
            Steered::Gone => {}
        }
    }
    Ok(adopted)
}

/// Has the node route back what comes in by a bridge. IPv6, which makes a router of the node, only where the bridge has
/// addresses of it.
fn route_back(netlink: &Netlink, state: &mut State, bridge: &Link) -> Result<(), Error> {
    let ipv6 = netlink.addresses(bridge.index)?.iter().any(|network| network.is_ipv6());
    let name = &bridge.name;
    Ok(state.for_adopted(name, |state| sysctl::route_back(state, Some(bridge), None, ipv6))?)
}

/// What became of a port that was to be steered.
enum Steered {
    Yes,
    /// It is a pod's.
    Pods,
    /// It is not there any more: guests come and go unasked.
    Gone,
}

fn steer(
    netlink: &Netlink,
    datapath: &Datapath,
    bridge: &Link,
    port: &Link,
) -> Result<Steered, Error> {
    let adopted = AdoptedPort { ifindex: port.index, bridge: bridge.index, mac: port.mac };
    match datapath.adopt(&adopted) {
        Ok(true) => Ok(Steered::Yes),
        Ok(false) => Ok(Steered::Pods),
        Err(_) if netlink.link_of_index(port.index)?.is_none() => Ok(Steered::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Releases a bridge, be it there or not. `None`: it is not adopted.
pub fn release(netlink: &Netlink, name: &str) -> Result<Option<Released>, Error> {
    // Nobody unloads or replaces programs meanwhile.
    let _loaded = crate::datapath::Lock::shared()?;
    let datapath = Datapath::whatever_is_left()?;
    state::with(|state| {
        if !state.adopted().contains(name) {
            return Ok(None);
        }
        let_go(netlink, &datapath, state, name).map(Some)
    })
}

fn let_go(
    netlink: &Netlink,
    datapath: &Datapath,
    state: &mut State,
    name: &str,
) -> Result<Released, Error> {
    let links = netlink.links()?;
    let index = links.iter().find(|link| link.name == name && link.is_bridge());
    let index = index.map(|bridge| bridge.index);
    let mut ports = Vec::new();
    // Also those that an `adopt` which was killed has not told PORTS of.
    for port in links.iter().filter(|link| index.is_some() && link.master == index) {
        if port.leads_to_guests() && datapath.release(port.index)? {
            ports.push(port.name.clone());
        }
    }
    // And those that have left it, or are there without it.
    let others: Vec<_> =
        bridges(state, &links).into_iter().filter(|bridge| bridge.name != name).collect();
    let strays = let_strays_go(datapath, &others, &links, &datapath.adopted()?)?;
    ports.extend(strays.into_iter().filter_map(|(_, link)| Some(link?.name.clone())));
    Ok(Released { ports, restored: state.release(name)? })
}

/// Has the ports of adopted bridges that there are now be steered, and those that were and have gone elsewhere no more. Returns
/// what is new, a line each; nothing where nothing is loaded.
pub fn refresh(netlink: &Netlink) -> Result<Vec<String>, Error> {
    let _loaded = crate::datapath::Lock::shared()?;
    let Some(datapath) = Datapath::open()? else { return Ok(Vec::new()) };
    state::with(|state| {
        let known = datapath.adopted()?;
        if known.is_empty() && state.adopted().is_empty() {
            return Ok(Vec::new());
        }
        let links = netlink.links()?;
        let bridges = bridges(state, &links);
        let strays = let_strays_go(&datapath, &bridges, &links, &known)?.into_iter();
        let mut news: Vec<_> = strays
            .map(|(ifindex, link)| {
                let name = link.map_or_else(|| format!("#{ifindex}"), |link| link.name.clone());
                format!("{name} is no port of an adopted bridge any more")
            })
            .collect();
        for bridge in bridges {
            news.extend(take_new(netlink, &datapath, state, bridge, &links, &known)?);
        }
        Ok(news)
    })
}

/// The adopted bridges that there are.
fn bridges<'a>(state: &State, links: &'a [Link]) -> Vec<&'a Link> {
    let is_adopted = |link: &&Link| {
        state.adopted().contains(&link.name) && reason_against(link, state).is_none()
    };
    links.iter().filter(is_adopted).collect()
}

/// Has ports be steered no more that are gone, or in none of the adopted `bridges` any more. Returns their indexes, and what
/// they are where they are there.
fn let_strays_go<'a>(
    datapath: &Datapath,
    bridges: &[&Link],
    links: &'a [Link],
    known: &[AdoptedPort],
) -> Result<Vec<(u32, Option<&'a Link>)>, Error> {
    let mut strays = Vec::new();
    for port in known {
        let link = links.iter().find(|link| link.index == port.ifindex);
        let master = link.and_then(|link| link.master);
        if bridges.iter().any(|bridge| Some(bridge.index) == master) {
            continue;
        }
        datapath.release(port.ifindex)?;
        strays.push((port.ifindex, link));
    }
    Ok(strays)
}

/// Has the ports of a bridge be steered that are not yet, or not so.
fn take_new(
    netlink: &Netlink,
    datapath: &Datapath,
    state: &mut State,
    bridge: &Link,
    links: &[Link],
    known: &[AdoptedPort],
) -> Result<Vec<String>, Error> {
    let mut news = Vec::new();
    let is_new = |link: &&Link| {
        let port = AdoptedPort { ifindex: link.index, bridge: bridge.index, mac: link.mac };
        link.master == Some(bridge.index) && link.leads_to_guests() && !known.contains(&port)
    };
    // Before any is steered: what is steered is to be let through.
    if links.iter().any(|link| is_new(&link)) {
        route_back(netlink, state, bridge)?;
    }
    for link in links.iter().filter(is_new) {
        if let Steered::Yes = steer(netlink, datapath, bridge, link)? {
            news.push(format!("{} of {} is steered", link.name, bridge.name));
        }
    }
    Ok(news)
}

/// An adopted bridge, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub bridge: String,
    /// Whether it is there.
    pub is_there: bool,
    /// The ports of its that are steered, by index.
    pub ports: Vec<u32>,
}

/// The adopted bridges.
pub fn show(netlink: &Netlink, datapath: &Datapath) -> Result<Vec<Standing>, Error> {
    let ports = datapath.adopted()?;
    state::with(|state| {
        let mut shown = Vec::new();
        for name in state.adopted() {
            let bridge = netlink.link(name)?.map(|bridge| bridge.index);
            let its = ports.iter().filter(|port| Some(port.bridge) == bridge);
            let ports = its.map(|port| port.ifindex).collect();
            shown.push(Standing { bridge: name.clone(), is_there: bridge.is_some(), ports });
        }
        Ok(shown)
    })
}
