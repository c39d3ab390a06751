//! What a pod may claim, and what the host may tell it.
//!
//! # Dropped, each under its own reason
//! - a priority tag, or two tags: hosts take them off, and what is behind two was not looked at. Frames of a VLAN are
//!   checked as others are, and the bridge's to part
//! - an IP source that is not the pod's, by this interface or another of its; unspecified and link-local ones may be used on the link (address detection, DHCP
//!   clients), but to nobody whom the host would route them to
//! - a source MAC that is not the pod's
//! - an ARP sender, or the target of a neighbour advertisement, that is not the pod's; ARP of any other kind (hosts heed
//!   some of it: `arp_process`, net/ipv4/arp.c)
//! - router advertisements and ND redirects from a pod; answers as a DHCP server; what may be either behind more IPv6
//!   extension headers than are passed over
//! - the host's own ND redirects to a pod: they would send it past the host (IPv6 has no `send_redirects`)
//!
//! On a hit nothing is checked: an entry is bound to the interface whose packet was checked when it was made.

use netplug_common::counter::Counter;
use netplug_common::ip::{Address, IpVersion, V4, V6};
use netplug_common::maps::port::{PodPort, SOURCE_GUARD};
use netplug_common::tuple::{Tuple, UDP};

use crate::maps;
use crate::packet::{Header, Packet, ethernet, neighbour};
use crate::skb::{ETHERNET, Skb};

/// Port of DHCP servers (RFC 2131 §4.1).
const DHCP_SERVER: u16 = 67;
/// Port of DHCPv6 servers (RFC 8415 §7.2).
const DHCP6_SERVER: u16 = 547;

/// What differs between the families.
pub trait Rules: Header {
    /// The port that a DHCP server of the family answers from.
    const DHCP_SERVER: u16;
    /// Checks the family's control messages.
    fn check_control(skb: Skb, packet: &Packet<Self>, port: &PodPort) -> Result<(), Counter>;
}

/// Checks what a pod sends.
#[inline(always)]
pub fn check<V: Rules>(skb: Skb, packet: &Packet<V>, port: &PodPort) -> Result<(), Counter> {
    if port.flags & SOURCE_GUARD == 0 {
        return Ok(());
    }
    check_mac(skb, port)?;
    let Tuple { source, destination, .. } = &packet.tuple;
    if !is_own::<V>(skb, source, port) {
        let is_routed = destination.is_for_one_host() && !destination.is_link_local();
        let may_be = source.is_unspecified() || source.is_link_local();
        if !may_be || (is_routed && !neighbour::is_discovery(packet)) {
            return Err(Counter::SourceAddress);
        }
    }
    if packet.tuple.protocol == UDP && packet.tuple.source_port.get() == V::DHCP_SERVER {
        return Err(Counter::DhcpServer);
    }
    V::check_control(skb, packet, port)
}

/// Checks what a pod says by ARP.
#[inline(always)]
pub fn check_arp(skb: Skb, port: &PodPort) -> Result<(), Counter> {
    if port.flags & SOURCE_GUARD == 0 {
        return Ok(());
    }
    check_mac(skb, port)?;
    let Some(sender) = neighbour::arp_sender(skb) else { return Err(Counter::ArpClaim) };
    let is_honest = ethernet::same(&sender.mac, &port.pod_mac)
        && (sender.address.is_unspecified() || is_own::<V4>(skb, &sender.address, port));
    if is_honest { Ok(()) } else { Err(Counter::ArpClaim) }
}

/// Checks the tag of a frame, if it has one; `is_only`: behind it is no other.
#[inline(always)]
pub fn check_tag(skb: Skb, port: &PodPort, is_only: bool) -> Result<(), Counter> {
    let is_guarded = port.flags & SOURCE_GUARD != 0;
    let is_priority = skb.is_tagged() && skb.vlan() == 0;
    if is_guarded && (!is_only || is_priority) { Err(Counter::PriorityTag) } else { Ok(()) }
}

/// Checks what the host itself sends to a pod.
#[inline(always)]
pub fn check_host<V: Rules>(skb: Skb) -> Result<(), Counter> {
    if V::ICMP != V6::ICMP {
        return Ok(());
    }
    // The kernel writes them without extension headers (`ndisc_send_redirect`, net/ipv6/ndisc.c).
    let is_redirect =
        V::is_icmp(skb) && skb.load::<u8>(ETHERNET + V::HEADER_LENGTH) == Some(neighbour::REDIRECT);
    if is_redirect { Err(Counter::NeighbourRedirect) } else { Ok(()) }
}

#[inline(always)]
fn check_mac(skb: Skb, port: &PodPort) -> Result<(), Counter> {
    match ethernet::macs(skb) {
        Some(macs) if ethernet::same(&macs.source, &port.pod_mac) => Ok(()),
        _ => Err(Counter::SourceMac),
    }
}

#[inline(always)]
fn is_own<V: Header>(skb: Skb, address: &V::Address, port: &PodPort) -> bool {
    maps::is_pods::<V>(address, skb.ifindex(), port)
}

impl Rules for V4 {
    const DHCP_SERVER: u16 = DHCP_SERVER;

    #[inline(always)]
    fn check_control(_: Skb, _: &Packet<Self>, _: &PodPort) -> Result<(), Counter> {
        Ok(())
    }
}

impl Rules for V6 {
    const DHCP_SERVER: u16 = DHCP6_SERVER;

    #[inline(always)]
    fn check_control(skb: Skb, packet: &Packet<Self>, port: &PodPort) -> Result<(), Counter> {
        if packet.tuple.protocol != Self::ICMP {
            let is_hidden = neighbour::may_follow(packet.tuple.protocol)
                && (packet.hops == neighbour::HOPS || packet.tuple.destination.is_link_local());
            return if is_hidden { Err(Counter::HiddenDiscovery) } else { Ok(()) };
        }
        match packet.icmp_type {
            neighbour::ROUTER_ADVERTISEMENT | neighbour::REDIRECT => {
                Err(Counter::RouterAdvertisement)
            }
            neighbour::NEIGHBOUR_ADVERTISEMENT => match neighbour::advertised(skb, packet.at(0)) {
                Some(target) if target.is_link_local() || is_own::<V6>(skb, &target, port) => {
                    Ok(())
                }
                _ => Err(Counter::NeighbourClaim),
            },
            _ => Ok(()),
        }
    }
}
