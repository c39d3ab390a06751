//! kube-proxy's nftables mode (Kubernetes 1.29 and later). **A fixture**: written from the description in our notes
//! of Kubernetes' behaviour, not recorded from a kube-proxy, of which none of that age is to be had from Debian.
//! The shape is its: two verdict maps, a chain for each service and each of its endpoints, `numgen`, a mark for
//! masquerade, and no rule about invalid packets.

use std::fmt::Write;
use std::net::SocketAddr;

use super::Service;
use crate::cast::{Family, cluster_cidr};

/// How many services have a map without a name each, if they have one backend only: the kernel finds such a map its number by
/// looking through all that there are (`nf_tables_set_alloc_name`, net/netfilter/nf_tables_api.c), a minute's work for 10,000.
const NAMELESS: usize = 1_000;

/// A ruleset for `nft -f` that serves `services` (those of `family`).
#[must_use]
pub fn kube_proxy_nftables(family: Family, services: &[Service]) -> String {
    let (ip, kind, loopback) = match family {
        Family::V4 => ("ip", "ipv4_addr", "ip daddr != 127.0.0.0/8"),
        Family::V6 => ("ip6", "ipv6_addr", "ip6 daddr != ::1"),
    };
    let services: Vec<_> = services.iter().filter(|service| service.family() == family).collect();
    let mut table = Table(format!(
        "table {ip} kube-proxy\ndelete table {ip} kube-proxy\ntable {ip} kube-proxy {{\n"
    ));
    table.block("chain mark-for-masquerade", &["meta mark set mark or 0x4000"]);
    let masquerading =
        ["mark and 0x4000 == 0 return", "meta mark set mark xor 0x4000", "masquerade fully-random"];
    table.block("chain masquerading", &masquerading);
    let (mut ips, mut node_ports) = (Vec::new(), Vec::new());
    for (number, service) in services.iter().enumerate() {
        let Service { at, protocol, external, balancers, .. } = service;
        let port = at.port();
        ips.push(format!("{} . {protocol} . {port} : goto service-{number}", at.ip()));
        for address in external.iter().chain(balancers) {
            ips.push(format!("{address} . {protocol} . {port} : goto external-{number}"));
        }
        if let Some(port) = service.node_port {
            node_ports.push(format!("{protocol} . {port} : goto external-{number}"));
        }
        table.service(ip, kind, number, service);
    }
    table.map("service-ips", &format!("{kind} . inet_proto . inet_service"), &ips);
    table.map("service-nodeports", "inet_proto . inet_service", &node_ports);
    table.block(
        "chain services",
        &[
            &format!("{ip} daddr . meta l4proto . th dport vmap @service-ips"),
            &format!(
                "{loopback} fib daddr type local meta l4proto . th dport vmap @service-nodeports"
            ),
        ],
    );
    for (hook, priority, jump) in [
        ("prerouting", "dstnat", "services"),
        ("output", "-100", "services"),
        ("postrouting", "srcnat", "masquerading"),
    ] {
        let hooked = format!("type nat hook {hook} priority {priority}");
        table.block(&format!("chain nat-{hook}"), &[&hooked, &format!("jump {jump}")]);
    }
    table.0 + "}\n"
}

/// The text of a table that is not closed yet.
struct Table(String);

impl Table {
    fn block(&mut self, head: &str, lines: &[impl AsRef<str>]) {
        writeln!(self.0, "  {head} {{").expect("a String takes all");
        for line in lines {
            writeln!(self.0, "    {}", line.as_ref()).expect("a String takes all");
        }
        self.0 += "  }\n";
    }

    fn map(&mut self, name: &str, kind: &str, elements: &[String]) {
        let kind = format!("type {kind} : verdict");
        let elements = match elements {
            [] => String::new(),
            some => format!("elements = {{ {} }}", some.join(",\n      ")),
        };
        self.block(&format!("map {name}"), &[&kind, &elements]);
    }

    fn service(&mut self, ip: &str, kind: &str, number: usize, service: &Service) {
        let Service { protocol, at, backends, name, .. } = service;
        for (index, backend) in backends.iter().enumerate() {
            let chain = format!("{number}-{index}");
            let mut lines = vec![
                format!("comment \"{name}\""),
                format!("{ip} saddr {} jump mark-for-masquerade", backend.ip()),
            ];
            if let Some(seconds) = service.affinity {
                let timeout = format!("timeout {seconds}s");
                let set = [&*format!("type {kind}"), "flags dynamic,timeout", &timeout];
                self.block(&format!("set affinity-{chain}"), &set);
                lines.push(format!("update @affinity-{chain} {{ {ip} saddr }}"));
            }
            lines.push(format!("meta l4proto {protocol} dnat to {backend}"));
            self.block(&format!("chain endpoint-{chain}"), &lines);
        }
        let cluster = cluster_cidr(service.family());
        let mut inner = vec![format!(
            "{ip} daddr {} {protocol} dport {} {ip} saddr != {cluster} jump mark-for-masquerade",
            at.ip(),
            at.port(),
        )];
        inner.extend(choose(ip, number, service, backends));
        self.block(&format!("chain service-{number}"), &inner);
        if service.node_port.is_none()
            && service.external.is_empty()
            && service.balancers.is_empty()
        {
            return;
        }
        let goto = format!("goto service-{number}");
        let outer = match &service.local {
            None => vec!["jump mark-for-masquerade".into(), goto],
            Some(local) => {
                let mut outer = vec![
                    format!("{ip} saddr {cluster} {goto}"),
                    "fib saddr type local jump mark-for-masquerade".into(),
                    format!("fib saddr type local {goto}"),
                ];
                outer.extend(choose(ip, number, service, local));
                outer
            }
        };
        self.block(&format!("chain external-{number}"), &outer);
    }
}

/// Who has been here before stays; the rest is chance.
fn choose(ip: &str, number: usize, service: &Service, backends: &[SocketAddr]) -> Vec<String> {
    let chain = |backend: &SocketAddr| {
        let index = service.backends.iter().position(|other| other == backend);
        format!("{number}-{}", index.expect("those of this node are among them"))
    };
    let mut lines = Vec::new();
    if service.affinity.is_some() {
        let stays = |backend| {
            let chain = chain(backend);
            format!("{ip} saddr @affinity-{chain} goto endpoint-{chain}")
        };
        lines.extend(backends.iter().map(stays));
    }
    let choice = |(index, backend)| format!("{index} : goto endpoint-{}", chain(backend));
    let choices: Vec<_> = backends.iter().enumerate().map(choice).collect();
    lines.push(match backends.len() {
        0 => "drop".into(),
        1 if number >= NAMELESS => format!("goto endpoint-{}", chain(&backends[0])),
        count => format!("numgen random mod {count} vmap {{ {} }}", choices.join(", ")),
    });
    lines
}
