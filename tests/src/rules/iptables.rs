//! kube-proxy's iptables mode: the shape that version 1.20 was recorded to write, chain by chain and in its order. What the
//! recording has none of is from our notes of the same version: external addresses, load balancers,
//! `externalTrafficPolicy: Local`, affinity.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

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
        chains.extend(service.backends.iter().map(|backend| endpoint_chain(service, *backend)));
        chains.push(service_chain(service));
        if !service.balancers.is_empty() {
            chains.push(balancer_chain(service));
        }
        if service.local.is_some() {
            chains.push(local_chain(service));
        }
        Writing { family, service, rules: &mut rules }.all();
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

/// One service about to be written.
struct Writing<'a> {
    family: Family,
    service: &'a Service,
    rules: &'a mut Rules,
}

impl Writing<'_> {
    fn all(&mut self) {
        self.node_port();
        self.cluster_address();
        self.external_addresses();
        self.balancers();
        let (backends, name) = (&self.service.backends, &self.service.name);
        self.endpoints();
        self.balance(&service_chain(self.service), backends);
        if let Some(local) = &self.service.local {
            let (chain, inner) = (local_chain(self.service), service_chain(self.service));
            self.add(Part::Balancing, format_args!(
                r#"{chain} -s {} -m comment --comment "Redirect pods trying to reach external loadbalancer VIP to clusterIP" -j {inner}"#,
                cluster_cidr(self.family)
            ));
            for (what, target) in [
                ("masquerade LOCAL traffic for", "KUBE-MARK-MASQ"),
                ("route LOCAL traffic to service chain for", &inner),
            ] {
                self.add(Part::Balancing, format_args!(
                    r#"{chain} -m comment --comment "{what} {name} LB IP" -m addrtype --src-type LOCAL -j {target}"#
                ));
            }
            if local.is_empty() {
                self.add(Part::Balancing, format_args!(
                    r#"{chain} -m comment --comment "{name} has no local endpoints" -j KUBE-MARK-DROP"#
                ));
            }
            self.balance(&chain, local);
        }
    }

    fn node_port(&mut self) {
        let Service { name, protocol, node_port: Some(port), .. } = self.service else { return };
        let (mark, outer) = self.outer();
        let loopback = if self.family == Family::V4 { "127.0.0.0/8" } else { "::1/128" };
        let from = if mark { String::new() } else { format!("-s {loopback} ") };
        for (from, target) in [(&*from, "KUBE-MARK-MASQ"), ("", &outer)] {
            self.add(Part::NodePort, format_args!(
                r#"KUBE-NODEPORTS {from}-p {protocol} -m comment --comment "{name}" -m {protocol} --dport {port} -j {target}"#
            ));
        }
    }

    fn cluster_address(&mut self) {
        let to = self.to(self.service.at.ip(), "cluster IP");
        let cluster = cluster_cidr(self.family);
        self.add(Part::Portal, format_args!("KUBE-SERVICES ! -s {cluster} {to} -j KUBE-MARK-MASQ"));
        let chain = service_chain(self.service);
        self.add(Part::Portal, format_args!("KUBE-SERVICES {to} -j {chain}"));
    }

    fn external_addresses(&mut self) {
        let (mark, outer) = self.outer();
        for address in &self.service.external {
            let to = self.to(*address, "external IP");
            if mark {
                self.add(Part::Portal, format_args!("KUBE-SERVICES {to} -j KUBE-MARK-MASQ"));
            }
            for who in [
                "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL",
                "-m addrtype --dst-type LOCAL",
            ] {
                self.add(Part::Portal, format_args!("KUBE-SERVICES {to} {who} -j {outer}"));
            }
        }
    }

    fn balancers(&mut self) {
        let (mark, outer) = self.outer();
        let (chain, name) = (balancer_chain(self.service), &self.service.name);
        for address in &self.service.balancers {
            let to = self.to(*address, "loadbalancer IP");
            self.add(Part::Portal, format_args!("KUBE-SERVICES {to} -j {chain}"));
            let targets =
                [Some("KUBE-MARK-MASQ").filter(|_| mark), Some(&*outer), Some("KUBE-MARK-DROP")];
            for target in targets.into_iter().flatten() {
                self.add(
                    Part::Balancing,
                    format_args!(
                        r#"{chain} -m comment --comment "{name} loadbalancer IP" -j {target}"#
                    ),
                );
            }
        }
    }

    fn endpoints(&mut self) {
        let Service { name, protocol, backends, affinity, .. } = self.service;
        for backend in backends {
            let endpoint = endpoint_chain(self.service, *backend);
            self.add(
                Part::Endpoint,
                format_args!(
                    r#"{endpoint} -s {}/{} -m comment --comment "{name}" -j KUBE-MARK-MASQ"#,
                    backend.ip(),
                    self.bits()
                ),
            );
            let set =
                affinity.map_or(String::new(), |_| format!("-m recent --set --name {endpoint} "));
            self.add(Part::Endpoint, format_args!(
                r#"{endpoint} -p {protocol} -m comment --comment "{name}" {set}-m {protocol} -j DNAT --to-destination {backend}"#
            ));
        }
    }

    /// Who has been here before stays; the rest is chance.
    fn balance(&mut self, chain: &str, backends: &[SocketAddr]) {
        let Service { name, affinity, .. } = self.service;
        for backend in backends {
            let endpoint = endpoint_chain(self.service, *backend);
            if let Some(seconds) = affinity {
                self.add(Part::Balancing, format_args!(
                    r#"{chain} -m comment --comment "{name}" -m recent --rcheck --seconds {seconds} --reap --name {endpoint} -j {endpoint}"#
                ));
            }
        }
        for (index, backend) in backends.iter().enumerate() {
            let endpoint = endpoint_chain(self.service, *backend);
            let chance = match backends.len() - index {
                1 => String::new(),
                #[expect(clippy::cast_precision_loss, reason = "services have few backends")]
                left => {
                    format!("-m statistic --mode random --probability {:.11} ", 1.0 / left as f64)
                }
            };
            self.add(
                Part::Balancing,
                format_args!(r#"{chain} -m comment --comment "{name}" {chance}-j {endpoint}"#),
            );
        }
    }

    /// Whether who calls from outside is masqueraded, and the chain that serves it.
    fn outer(&self) -> (bool, String) {
        match self.service.local {
            None => (true, service_chain(self.service)),
            Some(_) => (false, local_chain(self.service)),
        }
    }

    fn to(&self, address: IpAddr, what: &str) -> String {
        let Service { name, protocol, at, .. } = self.service;
        let (bits, port) = (self.bits(), at.port());
        format!(
            r#"-d {address}/{bits} -p {protocol} -m comment --comment "{name} {what}" -m {protocol} --dport {port}"#
        )
    }

    const fn bits(&self) -> u8 {
        match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    fn add(&mut self, part: Part, line: std::fmt::Arguments<'_>) {
        let text = match part {
            Part::NodePort => &mut self.rules.node_ports,
            Part::Endpoint => &mut self.rules.endpoints,
            Part::Portal => &mut self.rules.portals,
            Part::Balancing => &mut self.rules.balancing,
        };
        writeln!(text, "-A {line}").expect("a String takes all");
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

fn balancer_chain(service: &Service) -> String {
    chain("KUBE-FW-", &format!("{}{}", service.name, service.protocol))
}

fn local_chain(service: &Service) -> String {
    chain("KUBE-XLB-", &format!("{}{}", service.name, service.protocol))
}

fn endpoint_chain(service: &Service, backend: SocketAddr) -> String {
    chain("KUBE-SEP-", &format!("{}{}{backend}", service.name, service.protocol))
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
