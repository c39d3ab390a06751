//! A firewall of the operator's: rules in FORWARD about two addresses.

use std::net::IpAddr;

use crate::namespace::Namespace;

/// Forbids `from` to send to `to`: a DROP at the head of FORWARD.
///
/// # Panics
/// When iptables refuses it.
#[track_caller]
pub fn forbid(node: &Namespace, from: IpAddr, to: IpAddr) {
    node.run(&format!("{} -w -I FORWARD -s {from} -d {to} -j DROP", program(to)));
}

/// Takes [`forbid`] back.
///
/// # Panics
/// When there is no such rule.
#[track_caller]
pub fn allow(node: &Namespace, from: IpAddr, to: IpAddr) {
    node.run(&format!("{} -w -D FORWARD -s {from} -d {to} -j DROP", program(to)));
}

const fn program(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "iptables" } else { "ip6tables" }
}
