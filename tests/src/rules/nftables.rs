//! kube-proxy's nftables mode (Kubernetes 1.29 and later). **A fixture**: written from the description in our notes
//! of Kubernetes' behaviour, not recorded from a kube-proxy, of which none of that age is to be had from Debian.
//! The shape is its: two verdict maps, a chain for each service and each of its endpoints, `numgen`, a mark for
//! masquerade, and no rule about invalid packets.

use std::fmt::Write;

use super::Service;
use crate::cast::{Family, cluster_cidr};

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
        let Service { at, protocol, .. } = service;
        ips.push(format!("{} . {protocol} . {} : goto service-{number}", at.ip(), at.port()));
        if let Some(port) = service.node_port {
            node_ports.push(format!("{protocol} . {port} : goto external-{number}"));
        }
        table.service(ip, number, service);
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
    fn block(&mut self, head: &str, lines: &[&str]) {
        writeln!(self.0, "  {head} {{\n    {}\n  }}", lines.join("\n    "))
            .expect("a String takes all");
    }

    fn map(&mut self, name: &str, kind: &str, elements: &[String]) {
        let kind = format!("type {kind} : verdict");
        let elements = match elements {
            [] => String::new(),
            some => format!("elements = {{ {} }}", some.join(",\n      ")),
        };
        self.block(&format!("map {name}"), &[&kind, &elements]);
    }

    fn service(&mut self, ip: &str, number: usize, service: &Service) {
        let Service { protocol, at, backends, name, .. } = service;
        let mut choices = Vec::new();
        for (index, backend) in backends.iter().enumerate() {
            let chain = format!("endpoint-{number}-{index}");
            self.block(
                &format!("chain {chain}"),
                &[
                    &format!("comment \"{name}\""),
                    &format!("{ip} saddr {} jump mark-for-masquerade", backend.ip()),
                    &format!("meta l4proto {protocol} dnat to {backend}"),
                ],
            );
            choices.push(format!("{index} : goto {chain}"));
        }
        let choose = match backends.len() {
            0 => "drop".into(),
            count => format!("numgen random mod {count} vmap {{ {} }}", choices.join(", ")),
        };
        let from_afar = format!(
            "{ip} daddr {} {protocol} dport {} {ip} saddr != {} jump mark-for-masquerade",
            at.ip(),
            at.port(),
            cluster_cidr(service.family())
        );
        self.block(&format!("chain service-{number}"), &[&from_afar, &choose]);
        let goto = format!("goto service-{number}");
        self.block(&format!("chain external-{number}"), &["jump mark-for-masquerade", &goto]);
    }
}
