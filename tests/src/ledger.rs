//! What there is on a node, written down before and compared after.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::namespace::Namespace;

/// Things that a plugin could leave behind, each as a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    links: BTreeSet<String>,
    addresses: BTreeSet<String>,
    routes: BTreeSet<String>,
    rules: BTreeSet<String>,
    programs: BTreeSet<String>,
    pins: BTreeSet<String>,
    leases: BTreeSet<String>,
    sysctls: BTreeSet<String>,
}

/// Sysctls of the node as such that netplug may set, and sets back.
const SYSCTLS: [&str; 11] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/send_redirects",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_tcp_ignore_invalid_rst",
    "net/netfilter/nf_conntrack_tcp_timeout_unacknowledged",
    "net/netfilter/nf_conntrack_udp_timeout",
    "net/netfilter/nf_conntrack_udp_timeout_stream",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_fin_wait",
    "net/netfilter/nf_conntrack_tcp_timeout_last_ack",
];

impl Inventory {
    /// What is there now.
    #[must_use]
    pub fn of(node: &Namespace) -> Self {
        let lines = |command: &str| -> BTreeSet<String> {
            let output = node.try_feed(command, "");
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(|line| line.trim().to_owned())
                .collect()
        };
        let links: BTreeSet<_> =
            lines("ip -brief link").iter().map(|line| first_word(line)).collect();
        let programs = links.iter().flat_map(|link| filters(node, link)).collect();
        Self {
            addresses: lines("ip -oneline address").iter().map(|line| address(line)).collect(),
            routes: lines("ip route")
                .union(&lines("ip -6 route"))
                .map(|line| route(line))
                .collect(),
            rules: lines("nft --stateless list ruleset"),
            pins: node.enter(|| files_below(Path::new("/sys/fs/bpf"))),
            leases: node.enter(|| files_below(Path::new("/var/lib/cni"))),
            sysctls: SYSCTLS
                .iter()
                .map(|name| format!("{name} = {}", node.sysctl(name).unwrap_or_default()))
                .collect(),
            programs,
            links,
        }
    }

    /// Asserts that nothing came and nothing went.
    #[track_caller]
    pub fn assert_same(&self, after: &Self) {
        let mut differences = Vec::new();
        self.compare("link", after, |it| &it.links, |_| true, &mut differences);
        self.compare("address", after, |it| &it.addresses, |_| true, &mut differences);
        self.compare("route", after, |it| &it.routes, |_| true, &mut differences);
        self.compare("rule", after, |it| &it.rules, |_| true, &mut differences);
        self.compare("program", after, |it| &it.programs, |_| true, &mut differences);
        self.compare("pin", after, |it| &it.pins, |_| true, &mut differences);
        self.compare("lease", after, |it| &it.leases, |_| true, &mut differences);
        self.compare("sysctl", after, |it| &it.sysctls, |_| true, &mut differences);
        assert!(differences.is_empty(), "the node is not as it was:\n{}", differences.join("\n"));
    }

    /// Asserts that nothing of a pod is there any more. What serves all pods may stay: the bridge, the
    /// programs at uplinks, and netplug's pins.
    #[track_caller]
    pub fn assert_same_but_for_the_datapath(&self, after: &Self) {
        let not_the_bridge = |line: &str| !line.contains("cbr0");
        let mut differences = Vec::new();
        self.compare("link", after, |it| &it.links, not_the_bridge, &mut differences);
        self.compare("address", after, |it| &it.addresses, not_the_bridge, &mut differences);
        self.compare("route", after, |it| &it.routes, not_the_bridge, &mut differences);
        self.compare("rule", after, |it| &it.rules, |_| true, &mut differences);
        self.compare("lease", after, |it| &it.leases, |_| true, &mut differences);
        let ours = |pin: &str| !pin.starts_with("/sys/fs/bpf/netplug");
        self.compare("pin", after, |it| &it.pins, ours, &mut differences);
        assert!(differences.is_empty(), "pods left something behind:\n{}", differences.join("\n"));
    }

    /// Asserts that nothing of netplug's is pinned and no program is attached.
    #[track_caller]
    pub fn assert_unloaded(&self) {
        let pins: Vec<_> =
            self.pins.iter().filter(|pin| pin.starts_with("/sys/fs/bpf/netplug")).collect();
        assert!(pins.is_empty() && self.programs.is_empty(), "{pins:#?} {:#?}", self.programs);
    }

    fn compare(
        &self,
        kind: &str,
        after: &Self,
        part: fn(&Self) -> &BTreeSet<String>,
        counts: impl Fn(&str) -> bool,
        differences: &mut Vec<String>,
    ) {
        let came = part(after).difference(part(self)).filter(|line| counts(line));
        differences.extend(came.map(|line| format!("+ {kind} {line}")));
        let went = part(self).difference(part(after)).filter(|line| counts(line));
        differences.extend(went.map(|line| format!("- {kind} {line}")));
    }
}

/// TC programs of a link, which `bpftool` of any age can list for clsact.
fn filters(node: &Namespace, link: &str) -> BTreeSet<String> {
    let link = link.split('@').next().unwrap_or(link);
    let mut found = BTreeSet::new();
    for side in ["ingress", "egress"] {
        let output = node.try_feed(&format!("tc filter show dev {link} {side}"), "");
        let text = String::from_utf8_lossy(&output.stdout);
        found.extend(
            text.lines()
                .filter(|line| line.contains("bpf"))
                .map(|line| format!("{link} {side} {line}")),
        );
    }
    found
}

/// Every file below `folder` but locks and host-local's memory of the address it gave out last, which are not a
/// pod's.
fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> = vec![folder.into()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if name != "lock" && !name.starts_with("last_reserved_ip") {
                found.insert(entry.path().display().to_string());
            }
        }
    }
    found
}

fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

/// `2: eth0    inet 192.0.2.1/24 scope …` without index and lifetimes.
fn address(line: &str) -> String {
    line.split_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" ")
}

/// A route without what the kernel says of its state.
fn route(line: &str) -> String {
    line.trim_end_matches(" linkdown").trim().to_owned()
}
