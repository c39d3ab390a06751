//! The veth pair of an endpoint: the host end on the node, the pod end in the pod from its first moment.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkInfo, LinkMessage,
};

use super::link::Link;
use super::namespace::Namespace;
use super::netlink::{exists, is_gone, refused};
use super::{Error, Mac, Netlink};

/// How long an interface may take to carry packets; the reference `bridge` plugin waits as long.
const PATIENCE: Duration = Duration::from_millis(2500);

/// What a new pair is to be.
pub struct Pair<'a> {
    /// Name of the host end.
    pub host_name: &'a str,
    /// MAC of the host end.
    pub host_mac: Mac,
    /// Name of the pod end.
    pub pod_name: &'a str,
    /// MAC of the pod end.
    pub pod_mac: Mac,
    /// MTU of both, in L3 bytes.
    pub mtu: u32,
}

/// Whether netplug made it: it says so by its alias.
#[must_use]
pub fn is_ours(host_end: &Link) -> bool {
    host_end.is_veth()
        && host_end.alias.as_deref().is_some_and(|alias| alias.starts_with("netplug "))
}

/// Makes a pair, in one message. `false`: the host end's name is taken.
pub fn add(netlink: &Netlink, pair: &Pair<'_>, pod: &Namespace) -> Result<bool, Error> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(pair.pod_name.into()),
        LinkAttribute::Address(pair.pod_mac.to_vec()),
        LinkAttribute::Mtu(pair.mtu),
        LinkAttribute::NetNsFd(pod.descriptor().as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(pair.host_name.into()),
        LinkAttribute::Address(pair.host_mac.to_vec()),
        LinkAttribute::Mtu(pair.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    match netlink.run(netlink.handle().link().add(message).execute()) {
        Ok(()) => Ok(true),
        Err(error) if exists(&error) => Ok(false),
        Err(error) => Err(refused(
            "make",
            format!("the veth pair {} and {}", pair.host_name, pair.pod_name),
        )(error)),
    }
}

/// Waits until an interface carries packets: what is sent before is lost.
pub fn await_running(netlink: &Netlink, name: &str) -> Result<(), Error> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        let Some(link) = netlink.link(name)? else {
            return Err(Error::NoInterface { name: name.into(), place: String::new() });
        };
        if link.is_running {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::NotRunning { name: name.into(), after: PATIENCE });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Makes a host end a port of a bridge, with an alias that tells whose it is. The bridge learns nothing from it, not even from
/// its first frame: its FDB entry is written. Nothing passes until it is [switched on](switch_on).
///
/// `hairpin`: the bridge may send a frame back by the port that it came by. Needed only where others have switched
/// `bridge-nf-call-iptables` on: br_netfilter then bridges a pod's call to itself by a service, instead of routing it.
pub fn plug(
    netlink: &Netlink,
    index: u32,
    bridge: u32,
    alias: &str,
    name: &str,
    hairpin: bool,
) -> Result<(), Error> {
    let message = LinkUnspec::new_with_index(index).controller(bridge).alias(alias).build();
    netlink.set(message, name)?;
    let port = LinkUnspec::new_with_index(index)
        .set_port_kind(InfoPortKind::Bridge)
        .set_port_data(InfoPortData::BridgePort(vec![
            InfoBridgePort::Learning(false),
            InfoBridgePort::HairpinMode(hairpin),
        ]))
        .build();
    netlink
        .run(netlink.handle().link().set_port(port).execute())
        .map_err(refused("set up as a bridge port", name))
}

/// Has packets pass a host end.
pub fn switch_on(netlink: &Netlink, host_end: &Link) -> Result<(), Error> {
    let message = LinkUnspec::new_with_index(host_end.index).up().build();
    netlink.set(message, &host_end.name)
}

/// Has nothing pass a host end any more; content where it is gone.
pub fn switch_off(netlink: &Netlink, host_end: &Link) -> Result<(), Error> {
    let message = LinkUnspec::new_with_index(host_end.index).down().build();
    match netlink.run(netlink.handle().link().set(message).execute()) {
        Err(error) if !is_gone(&error) => Err(refused("switch off", &host_end.name)(error)),
        _ => Ok(()),
    }
}
