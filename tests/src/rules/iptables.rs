//! kube-proxy's iptables mode: the shape that version 1.20 was recorded to write, chain by chain and in its order.

use std::fmt::Write;

use super::Service;
use crate::cast::{Family, cluster_cidr};

/// What `iptables-save` would show of a node whose kube-proxy knows `services` (those of `family`).
#[must_use]
pub fn kube_proxy(family: Family, services: &[Service]) -> String {
    let services: Vec<_> = services.iter().filter(|service| service.family() == family).collect();
    format!("{}{}{}", mangle(), filter(family), nat(family, &services))
}

fn mangle() -> String {
    table("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"], &[], "")
}

fn filter(family: Family) -> String {
    let chains = ["KUBE-EXTERNAL-SERVICES", "KUBE-FIREWALL", "KUBE-FORWARD", "KUBE-SERVICES"]
        .map(String::from);
    let mut rules = String::from(
        r#"-A INPUT -j KUBE-FIREWALL
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -j KUBE-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
"#,
    );
    if family == Family::V4 {
        rules += r#"-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
"#;
    }
    rules += r#"-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack pod source rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack pod destination rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
"#;
    table("filter", &["INPUT", "FORWARD", "OUTPUT"], &chains, &rules)
}

fn nat(family: Family, services: &[&Service]) -> String {
    let mut chains: Vec<String> =
        ["KUBE-MARK-DROP", "KUBE-MARK-MASQ", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-SERVICES"]
            .map(String::from)
            .into();
    let mut rules = Rules::default();
    for service in services {
        chains.extend((0..service.backends.len()).map(|index| endpoint_chain(service, index)));
        chains.push(service_chain(service));
        rules.add(family, service);
    }
    let head = r#"-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
"#;
    let post = r#"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
"#;
    let last = r#"-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
"#;
    let Rules { node_ports, endpoints, portals, balancing } = rules;
    let rules = format!("{head}{node_ports}{post}{endpoints}{portals}{last}{balancing}");
    table("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"], &chains, &rules)
}

/// The parts of the nat table that grow with the services, each in its place.
#[derive(Default)]
struct Rules {
    node_ports: String,
    endpoints: String,
    portals: String,
    balancing: String,
}

impl Rules {
    fn add(&mut self, family: Family, service: &Service) {
        let Service { name, protocol, at, backends, .. } = service;
        let (chain, bits) = (service_chain(service), if family == Family::V4 { 32 } else { 128 });
        let mut write = |part: Part, line: std::fmt::Arguments<'_>| {
            let text = match part {
                Part::NodePort => &mut self.node_ports,
                Part::Endpoint => &mut self.endpoints,
                Part::Portal => &mut self.portals,
                Part::Balancing => &mut self.balancing,
            };
            writeln!(text, "-A {line}").expect("a String takes all");
        };
        if let Some(port) = service.node_port {
            for target in ["KUBE-MARK-MASQ", &chain] {
                write(
                    Part::NodePort,
                    format_args!(
                        r#"KUBE-NODEPORTS -p {protocol} -m comment --comment "{name}" -m {protocol} --dport {port} -j {target}"#
                    ),
                );
            }
        }
        let to = format!(
            r#"-d {}/{bits} -p {protocol} -m comment --comment "{name} cluster IP" -m {protocol} --dport {}"#,
            at.ip(),
            at.port()
        );
        write(
            Part::Portal,
            format_args!("KUBE-SERVICES ! -s {} {to} -j KUBE-MARK-MASQ", cluster_cidr(family)),
        );
        write(Part::Portal, format_args!("KUBE-SERVICES {to} -j {chain}"));
        for (index, backend) in backends.iter().enumerate() {
            let endpoint = endpoint_chain(service, index);
            write(
                Part::Endpoint,
                format_args!(
                    r#"{endpoint} -s {}/{bits} -m comment --comment "{name}" -j KUBE-MARK-MASQ"#,
                    backend.ip()
                ),
            );
            write(
                Part::Endpoint,
                format_args!(
                    r#"{endpoint} -p {protocol} -m comment --comment "{name}" -m {protocol} -j DNAT --to-destination {backend}"#
                ),
            );
            let left = backends.len() - index;
            let chance = match left {
                1 => String::new(),
                #[expect(clippy::cast_precision_loss, reason = "services have few backends")]
                left => {
                    format!("-m statistic --mode random --probability {:.11} ", 1.0 / left as f64)
                }
            };
            write(
                Part::Balancing,
                format_args!(r#"{chain} -m comment --comment "{name}" {chance}-j {endpoint}"#),
            );
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    NodePort,
    Endpoint,
    Portal,
    Balancing,
}

fn table(name: &str, built_in: &[&str], chains: &[String], rules: &str) -> String {
    let mut text = format!("*{name}\n");
    for chain in built_in {
        writeln!(text, ":{chain} ACCEPT [0:0]").expect("a String takes all");
    }
    let canaries = ["KUBE-KUBELET-CANARY", "KUBE-PROXY-CANARY"].map(String::from);
    for chain in canaries.iter().chain(chains) {
        writeln!(text, ":{chain} - [0:0]").expect("a String takes all");
    }
    text + rules + "COMMIT\n"
}

fn service_chain(service: &Service) -> String {
    chain("KUBE-SVC-", &format!("{}{}", service.name, service.protocol))
}

fn endpoint_chain(service: &Service, index: usize) -> String {
    chain("KUBE-SEP-", &format!("{}{}{}", service.name, service.protocol, service.backends[index]))
}

/// A chain's name: a digest in base 32, as kube-proxy has it, by a hash that needs no crate.
fn chain(prefix: &str, of: &str) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for octet in of.bytes() {
        hash = (hash ^ u128::from(octet)).wrapping_mul(0x0100_0000_0000_0000_013b);
    }
    let letter = |place: u32| {
        let digit = (hash >> (5 * place)) as usize & 31;
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[digit])
    };
    let digest: String = (0..16).map(letter).collect();
    format!("{prefix}{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Protocol;

    #[test]
    fn a_service_of_two_has_the_recorded_rules() {
        let backends = ["10.244.0.3:8080", "10.244.0.4:8080"].map(|at| at.parse().unwrap());
        let mut service = Service::new(Protocol::Tcp, 80, &backends);
        service.name = "default/web".into();
        let text = kube_proxy(Family::V4, &[service.node_port(30080)]);
        let hashed = regex_free(&text);
        for line in [
            r#"-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j KUBE-MARK-MASQ"#,
            r#"-A # -s 10.244.0.3/32 -m comment --comment "default/web" -j KUBE-MARK-MASQ"#,
            r#"-A # -p tcp -m comment --comment "default/web" -m tcp -j DNAT --to-destination 10.244.0.3:8080"#,
            r#"-A KUBE-SERVICES ! -s 10.244.0.0/16 -d 10.96.0.80/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ"#,
            r#"-A KUBE-SERVICES -d 10.96.0.80/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j #"#,
            r#"-A # -m comment --comment "default/web" -m statistic --mode random --probability 0.50000000000 -j #"#,
            r#"-A # -m comment --comment "default/web" -j #"#,
        ] {
            assert!(hashed.lines().any(|have| have == line), "missing: {line}\nin\n{hashed}");
        }
    }

    /// The text with every hashed chain name replaced.
    fn regex_free(text: &str) -> String {
        let word = |word: &str| {
            if word.starts_with("KUBE-SVC-") || word.starts_with("KUBE-SEP-") {
                "#".into()
            } else {
                word.to_owned()
            }
        };
        let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }
}
