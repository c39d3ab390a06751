//! `netplug watch`: what changes on the host counts at once for flows that are learned, too. Flows here ask the host by the epoch
//! alone: none grows old.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{NODE_1, OUTSIDE, SERVICE};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, becomes, eventually};
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{self, Service};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{Capture, Dial, IMPATIENCE, Talk};
use netplug_tests::undue::never_due;
use netplug_tests::watcher::Watcher;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;

use crate::masquerade::{second_router, second_uplink};
use crate::scene::PORT;

const REQUESTS: usize = 50;
/// Five times as long as changes are answered together.
const CHATTER: Duration = Duration::from_millis(500);

/// Who writes rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Legacy,
    OnNftables,
    Nft,
}

impl Tool {
    /// iptables by another name.
    fn iptables(self, ip: Family, rest: &str) -> String {
        let six = if ip == V4 { "" } else { "6" };
        let kind = if self == Self::Legacy { "legacy" } else { "nft" };
        format!("ip{six}tables-{kind}{rest}")
    }

    /// Loads what kube-proxy would for a service of `backends`, instead of what there was.
    fn serve(self, node: &Namespace, ip: Family, backends: &[SocketAddr]) {
        let services = Service::both(80, backends);
        match self {
            Self::Nft => node.feed("nft -f -", &rules::kube_proxy_nftables(ip, &services)),
            _ => node.feed(&self.iptables(ip, "-restore"), &rules::kube_proxy(ip, &services)),
        };
    }

    /// Forbids `from` to send to `to`.
    fn forbid(self, node: &Namespace, from: IpAddr, to: IpAddr) {
        let ip = Family::of(to);
        if self == Self::Nft {
            let kind = if ip == V4 { "ip" } else { "ip6" };
            let rules = format!(
                "add table inet firewall\n\
                 add chain inet firewall forward {{ type filter hook forward priority 0; }}\n\
                 add rule inet firewall forward {kind} saddr {from} {kind} daddr {to} drop\n"
            );
            node.feed("nft -f -", &rules);
        } else {
            let rule = format!(" -w -I FORWARD -s {from} -d {to} -j DROP");
            node.run(&self.iptables(ip, &rule));
        }
    }
}

fn epoch(node: &Node) -> u64 {
    node.netplug_json("status")["epoch"].as_u64().expect("it is loaded")
}

/// `netplug watch`, once it has done what it does as it begins.
#[track_caller]
fn watched(node: &Node) -> Watcher {
    let before = epoch(node);
    let watcher = node.watch("");
    becomes(SOON, before + 1, || epoch(node));
    watcher
}

/// Learned in both directions, for longer than a test runs.
#[track_caller]
fn settled(node: &Node, talk: &mut Talk) {
    talk.ask_times(REQUESTS).expect("all are answered");
    never_due(node.namespace());
    let before = Counters::of(node);
    talk.ask_times(REQUESTS).expect("all are answered");
    let since = Counters::of(node).since(&before);
    assert_eq!(since.get(Counter::Visit), 0, "{since:?}");
}

/// A client, and two pods that serve.
struct Served {
    node: Node,
    client: Pod,
    backends: [Pod; 2],
}

impl Served {
    fn new() -> Self {
        let node = Node::new();
        let backends = ["web", "twin"].map(|name| node.add_pod(name).listening(PORT));
        Self { client: node.add_pod("client"), node, backends }
    }

    fn serve(&self, tool: Tool, ip: Family, backend: usize) {
        tool.serve(self.node.namespace(), ip, &[self.backends[backend].at(ip, PORT)]);
    }

    fn dial(&self, ip: Family) -> Dial<'_> {
        self.client.dial(SocketAddr::new(SERVICE.ip(ip), 80)).patience(IMPATIENCE)
    }
}

/// As kube-proxy does: the rules, and then what conntrack has. Both tables have the same shape.
#[rstest]
fn a_flow_leaves_an_endpoint_that_is_no_more(
    #[values(V4, V6)] ip: Family,
    #[values(Tool::Legacy, Tool::OnNftables, Tool::Nft)] tool: Tool,
) {
    let served = Served::new();
    let node = &served.node;
    served.serve(tool, ip, 0);
    let _watcher = watched(node);
    let mut talk = opened(served.dial(ip), Udp);
    assert_eq!(talk.ask("who?").unwrap().server, "web");
    settled(node, &mut talk);
    moves_to_twin(&served, tool, ip, &mut talk);
}

#[track_caller]
fn moves_to_twin(served: &Served, tool: Tool, ip: Family, talk: &mut Talk) {
    served.serve(tool, ip, 1);
    served.node.namespace().run(&format!("conntrack -D -p udp --orig-dst {}", SERVICE.ip(ip)));
    eventually(SOON, || match talk.ask("who?") {
        Ok(answer) if answer.server == "twin" => Ok(()),
        other => Err(other),
    });
}

/// Not every tool takes the lock that tells of it, or this one.
#[rstest]
fn a_table_is_looked_at_without_its_lock(#[values(V4, V6)] ip: Family) {
    let served = Served::new();
    let node = &served.node;
    served.serve(Tool::Legacy, ip, 0);
    let _watcher = watched(node);
    let mut talk = opened(served.dial(ip), Udp);
    assert_eq!(talk.ask("who?").unwrap().server, "web");
    settled(node, &mut talk);
    // Another file from now on.
    node.namespace().run("mv /run/xtables.lock /run/lost.lock");
    moves_to_twin(&served, Tool::Legacy, ip, &mut talk);
}

#[rstest]
fn a_rule_that_is_added_stops_what_is_under_way(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Tool::Legacy, Tool::OnNftables, Tool::Nft)] tool: Tool,
) {
    let served = Served::new();
    let node = &served.node;
    let _watcher = watched(node);
    let [web, _] = &served.backends;
    let dial = served.client.dial(web.at(ip, PORT)).patience(IMPATIENCE);
    let mut talk = opened(dial, protocol);
    settled(node, &mut talk);
    tool.forbid(node.namespace(), served.client.ip(ip), web.ip(ip));
    stops(&mut talk);
    dial.ask(protocol, "and anew?").unwrap_err();
    match tool {
        Tool::Nft => node.namespace().run("nft delete table inet firewall"),
        _ => node.namespace().run(&tool.iptables(ip, " -w -F FORWARD")),
    };
    eventually(SOON, || dial.ask(protocol, "again?"));
}

#[track_caller]
fn stops(talk: &mut Talk) {
    eventually(SOON, || talk.ask("still?").err().ok_or("it goes on"));
}

/// By a route, or by a rule that leads to another table.
#[rstest]
fn a_flow_leaves_by_the_uplink_that_its_route_leads_to_now(
    #[values(V4, V6)] ip: Family,
    #[values("route", "rule")] by: &str,
) {
    let node = Node::with(Network::netplug().with("uplinks", json!(["eth0", "eth1"])));
    node.outside().listen(PORT);
    let own = second_uplink(&node, ip);
    let client = node.add_pod("client");
    let (flag, to, via) = (flag(ip), OUTSIDE.ip(ip), second_router(ip));
    node.namespace().run(&format!("ip {flag} route add {to} via {via} table 100"));
    let _watcher = watched(&node);
    let (mut talk, first) = first_talk(&client, SocketAddr::new(to, PORT));
    assert_eq!(first, NODE_1.ip(ip));
    settled(&node, &mut talk);
    node.namespace().run(&match by {
        "route" => format!("ip {flag} route add {to} via {via}"),
        _ => format!("ip {flag} rule add to {to} lookup 100"),
    });
    eventually(SOON, || match talk.ask("whence?") {
        Ok(answer) if answer.client_ip() == own => Ok(()),
        other => Err(other),
    });
}

/// Of which the kernel tells no route that goes.
#[rstest]
fn a_flow_leaves_an_uplink_that_goes_down(#[values(V4, V6)] ip: Family) {
    let node = Node::with(Network::netplug().with("uplinks", json!(["eth0", "eth1"])));
    node.outside().listen(PORT);
    let own = second_uplink(&node, ip);
    let client = node.add_pod("client");
    let (flag, to, via) = (flag(ip), OUTSIDE.ip(ip), second_router(ip));
    node.namespace().run(&format!("ip {flag} route add {to} via {via}"));
    let _watcher = watched(&node);
    let (mut talk, first) = first_talk(&client, SocketAddr::new(to, PORT));
    assert_eq!(first, own);
    settled(&node, &mut talk);
    node.namespace().run("ip link set eth1 down");
    eventually(SOON, || match talk.ask("whence?") {
        Ok(answer) if answer.client_ip() == NODE_1.ip(ip) => Ok(()),
        other => Err(other),
    });
}

/// With neighbours that are known: IPv6's first question on a fresh link may be lost.
#[track_caller]
fn opened(dial: Dial<'_>, protocol: Protocol) -> Talk {
    eventually(SOON, || dial.ask(protocol, "first"));
    dial.open(protocol).expect("it was reached just now")
}

/// The same, and as whom it is seen.
#[track_caller]
fn first_talk(client: &Pod, to: SocketAddr) -> (Talk, IpAddr) {
    let mut talk = opened(client.dial(to).patience(IMPATIENCE), Udp);
    let seen = talk.ask("whence?").expect("it is answered").client_ip();
    (talk, seen)
}

const fn flag(ip: Family) -> &'static str {
    if matches!(ip, V4) { "-4" } else { "-6" }
}

/// The short way asks the kernel where a neighbour is: nothing is voided, and there is nothing to void.
#[rstest]
fn a_neighbours_mac_counts_at_once(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let _watcher = watched(&node);
    let (mut talk, _) = first_talk(&client, SocketAddr::new(OUTSIDE.ip(ip), PORT));
    settled(&node, &mut talk);
    let (before, seen) = (epoch(&node), Capture::on(node.outside().namespace(), "eth0").unwrap());
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
    let moved = format!("ip neigh replace {} lladdr 02:00:00:00:00:99 dev eth0", OUTSIDE.ip(ip));
    node.namespace().run(&moved);
    talk.say("there?").unwrap();
    let frame = std::iter::repeat_with(|| seen.next().unwrap().frame)
        .find(|frame| frame.windows(6).any(|text| text == b"there?"))
        .unwrap();
    assert_eq!(frame[..6], MAC);
    assert_eq!(epoch(&node), before);
}

/// What does not matter goes on for longer than changes are answered together, and is followed by a change of the same kind: once
/// that is answered, all before it was heard.
#[track_caller]
fn voids_nothing(node: &Node, chatter: impl Fn(usize), change: impl FnOnce()) {
    let before = epoch(node);
    let began = Instant::now();
    (0..).take_while(|_| began.elapsed() < CHATTER).for_each(chatter);
    assert_eq!(epoch(node), before);
    change();
    becomes(SOON, before + 1, || epoch(node));
}

#[test]
fn neighbours_and_connections_that_come_and_go_void_nothing() {
    let served = Served::new();
    let node = &served.node;
    // With services the host keeps connections.
    served.serve(Tool::Nft, V4, 0);
    let _watcher = watched(node);
    let chatter = |number: usize| {
        for ip in [V4, V6] {
            let (address, mac) = (OUTSIDE.ip(ip), format!("02:00:00:00:00:{:02x}", number % 256));
            for state in ["reachable", "stale", "failed"] {
                node.namespace()
                    .run(&format!("ip neigh replace {address} lladdr {mac} dev eth0 nud {state}"));
            }
            node.namespace().run(&format!("ip neigh flush to {address} dev eth0"));
        }
        served.client.dial(served.backends[0].at(V4, PORT)).ask(Tcp, "a connection").unwrap();
        node.namespace().run("conntrack -D -p tcp");
    };
    voids_nothing(node, chatter, || {
        node.namespace().run("ip route add blackhole 198.51.100.1");
    });
}

#[test]
fn rules_of_other_namespaces_void_nothing() {
    let served = Served::new();
    let (node, stranger) = (&served.node, Node::new());
    let _watcher = watched(node);
    let forbid = |node: &Node| Tool::Nft.forbid(node.namespace(), OUTSIDE.ip(V4), NODE_1.ip(V4));
    voids_nothing(node, |_| forbid(&stranger), || forbid(node));
}

/// Nor does who only reads tables, or writes those of another namespace, with the same lock.
#[test]
fn a_lock_that_is_let_go_is_no_change() {
    let served = Served::new();
    let node = &served.node;
    let stranger = node.namespace().pod("stranger");
    let forbid = |place: &Namespace, ip: Family| {
        Tool::Legacy.forbid(place, OUTSIDE.ip(ip), NODE_1.ip(ip));
    };
    for ip in [V4, V6] {
        forbid(node.namespace(), ip);
    }
    let _watcher = watched(node);
    let to = served.backends[0].at(V4, PORT);
    let chatter = |number: usize| {
        // What rules count is no change of theirs.
        served.client.dial(to).ask(Udp, "counted").unwrap();
        for ip in [V4, V6] {
            node.namespace().run(&Tool::Legacy.iptables(ip, " -w -L FORWARD -n"));
            if number < 5 {
                forbid(&stranger, ip);
            }
        }
    };
    voids_nothing(node, chatter, || forbid(node.namespace(), V6));
}

/// What leads to it is told for itself.
#[test]
fn a_pod_that_comes_voids_nothing() {
    let node = Node::new();
    let _web = node.add_pod("web");
    let _watcher = watched(&node);
    let add = |number: usize| drop(node.add_pod(&format!("late-{number}")));
    voids_nothing(&node, add, || {
        node.namespace().run("ip route add blackhole 198.51.100.1");
    });
}

#[rstest]
fn a_storm_is_answered_seldom_and_to_its_end(#[values(false, true)] is_asleep: bool) {
    const CHANGES: u64 = 20_000;
    let served = Served::new();
    let node = &served.node;
    let watcher = watched(node);
    let [web, _] = &served.backends;
    let mut talk = opened(served.client.dial(web.at(V4, PORT)).patience(IMPATIENCE), Udp);
    settled(node, &mut talk);
    let before = epoch(node);
    let storm = || {
        let mut routes = String::new();
        for change in 0..CHANGES {
            let verb = if change % 2 == 0 { "add" } else { "del" };
            routes += &format!("route {verb} blackhole 198.51.100.1\n");
        }
        routes += &format!("route add blackhole {} table 77\n", web.ip(V4));
        routes += &format!("rule add to {} lookup 77\n", web.ip(V4));
        node.namespace().feed("ip -batch -", &routes);
    };
    // Asleep, it is told that there was more than can be told.
    if is_asleep {
        watcher.still(storm)
    } else {
        storm()
    }
    stops(&mut talk);
    let answers = epoch(node) - before;
    assert!((1..CHANGES / 100).contains(&answers), "{answers} answers");
    node.namespace().run("ip rule del lookup 77");
    let mut talk = opened(served.client.dial(web.at(V4, PORT)).patience(IMPATIENCE), Udp);
    settled(node, &mut talk);
    // It goes on listening.
    Tool::Nft.forbid(node.namespace(), served.client.ip(V4), web.ip(V4));
    stops(&mut talk);
    assert!(watcher.end_by(Signal::TERM).success());
}

/// Each transaction tells of all that it changes.
#[test]
fn a_storm_of_rules_is_answered_to_its_end() {
    let served = Served::new();
    let node = &served.node;
    let watcher = watched(node);
    let [web, _] = &served.backends;
    let mut talk = opened(served.client.dial(web.at(V4, PORT)).patience(IMPATIENCE), Udp);
    settled(node, &mut talk);
    watcher.still(|| {
        let fillers = rules::fillers(V4, 2_000);
        node.namespace().feed("nft -f -", &rules::kube_proxy_nftables(V4, &fillers));
        Tool::Nft.forbid(node.namespace(), served.client.ip(V4), web.ip(V4));
    });
    stops(&mut talk);
}

/// What changed while nobody watched was told to nobody.
#[test]
fn a_watch_begins_by_having_all_flows_ask() {
    let served = Served::new();
    let node = &served.node;
    let [web, _] = &served.backends;
    let mut talk = opened(served.client.dial(web.at(V4, PORT)).patience(IMPATIENCE), Udp);
    settled(node, &mut talk);
    Tool::Legacy.forbid(node.namespace(), served.client.ip(V4), web.ip(V4));
    talk.ask("still?").unwrap();
    let _watcher = node.watch("");
    stops(&mut talk);
}

/// What hangs on pods goes on, and follows flows, whatever pin is lost.
#[test]
fn a_rule_counts_where_a_pin_is_lost() {
    let served = Served::new();
    let node = &served.node;
    let _watcher = watched(node);
    let [web, _] = &served.backends;
    let mut talk = opened(served.client.dial(web.at(V4, PORT)).patience(IMPATIENCE), Udp);
    settled(node, &mut talk);
    node.namespace().run("rm /sys/fs/bpf/netplug/v1/COUNTERS");
    Tool::Nft.forbid(node.namespace(), served.client.ip(V4), web.ip(V4));
    stops(&mut talk);
}
