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

/// How many packets [`forbid`] has dropped, by the kernel's count.
///
/// # Panics
/// When there is no such rule.
#[must_use]
#[track_caller]
pub fn forbidden(node: &Namespace, from: IpAddr, to: IpAddr) -> u64 {
    let rules = node.run(&format!("{} -w -nvx -L FORWARD", program(to)));
    let (from, to) = (from.to_string(), to.to_string());
    let is_it = |words: &Vec<&str>| {
        words.contains(&"DROP") && words.contains(&&*from) && words.contains(&&*to)
    };
    let mut rows = rules.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rule = rows.find(is_it).unwrap_or_else(|| panic!("{from} may speak to {to}: {rules}"));
    rule[0].parse().unwrap_or_else(|error| panic!("{error}: {rules}"))
}

const fn program(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "iptables" } else { "ip6tables" }
}
