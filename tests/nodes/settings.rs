//! What the configuration says, and what the node says beside it: uplinks, exempt networks, wanted addresses, routes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NODE_1, OUTSIDE, pod_cidr};
use netplug_tests::kernel::has_tcx;
use netplug_tests::ledger::Inventory;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::runtime::Attachment;
use netplug_tests::traffic::Protocol::{Tcp, Udp};
use rstest::rstest;
use serde_json::{Value, json};

use crate::faults::{too_many_cidrs, unplugged};
use crate::scene::PORT;

/// A second network beside the first, on a bridge of its own. Its configuration names no routes.
fn storage() -> Network {
    Network::netplug().named("storage").with("bridge", "cbr1").with(
        "ipam",
        json!({
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:244:0:7::/64"}]],
        }),
    )
}

/// The network with `cidrs` for what is not masqueraded.
fn exempting(network: Network, cidrs: &[&str]) -> Network {
    network.with("masquerade", json!({"nonMasqueradeCIDRs": cidrs}))
}

/// The CIDRs that `netplug status` says are not masqueraded.
fn exempt(node: &Node) -> Vec<String> {
    let status = node.netplug_json("status");
    let cidrs = status["non_masquerade_cidrs"].as_array().map(Vec::as_slice).unwrap_or_default();
    cidrs.iter().filter_map(|cidr| cidr.as_str().map(str::to_owned)).collect()
}

/// What counts for the whole node, as `netplug status` and the state file have it.
fn what_counts(node: &Node) -> Value {
    let status = node.netplug_json("status");
    let kept = node.namespace().run("cat /run/netplug/state.json");
    let kept: Value = serde_json::from_str(&kept).expect("the state file is JSON");
    let of = |from: &Value, keys: [&str; 4]| keys.map(|key| from[key].clone());
    json!([
        of(&status, ["steering", "masquerade", "uplinks", "non_masquerade_cidrs"]),
        of(&kept, ["exempt", "pods", "asked", "uplinks"]),
    ])
}

/// Where the routes of a result lead.
fn destinations(result: &Value) -> Vec<&str> {
    let routes = result["routes"].as_array().map(Vec::as_slice).unwrap_or_default();
    routes.iter().filter_map(|route| route["dst"].as_str()).collect()
}

/// The pod's default routes, as people read them.
fn defaults(pod: &Pod) -> String {
    ["-4", "-6"]
        .map(|family| pod.namespace().run(&format!("ip {family} route show default")))
        .concat()
}

fn has_default(destinations: &[&str]) -> bool {
    destinations.iter().any(|to| ["0.0.0.0/0", "::/0"].contains(to))
}

#[test]
fn an_uplink_stays_while_its_default_route_is_away() {
    let node = Node::new();
    node.outside().listen(PORT);
    let early = node.add_pod("early");
    for family in ["-4", "-6"] {
        node.namespace().run(&format!("ip {family} route del default"));
    }
    let late = node.add_pod("late");
    for family in Family::BOTH {
        node.namespace().run(&format!("ip route add default via {}", OUTSIDE.ip(family)));
    }
    let status = node.netplug_json("status");
    let uplinks = status["uplinks"].as_array().unwrap();
    assert!(uplinks.iter().any(|uplink| uplink["interface"] == "eth0"), "{status}");
    for (pod, ip) in [(&early, V4), (&early, V6), (&late, V4), (&late, V6)] {
        for protocol in [Tcp, Udp] {
            let mut talk = pod.dial(SocketAddr::new(OUTSIDE.ip(ip), PORT)).open(protocol).unwrap();
            assert_eq!(talk.ask_times(30).unwrap().client_ip(), NODE_1.ip(ip), "{}", pod.name());
        }
    }
}

/// Uplinks that stay while their default route is away are those of default routes; others were somebody's word.
#[test]
fn an_uplink_that_is_named_no_more_is_left() {
    let node = Node::new();
    node.outside().listen(PORT);
    node.namespace().run("ip link add spare type veth peer name spare-peer");
    let named = node.network().clone().with("uplinks", json!(["eth0", "spare"]));
    let early = node.add_pod_to("early", &named);
    let mut talk = early.dial(SocketAddr::new(OUTSIDE.ip(V4), PORT)).open(Tcp).unwrap();
    talk.ask_times(20).unwrap();
    let uplinks = || node.netplug_json("status")["uplinks"].as_array().unwrap().len();
    assert_eq!(uplinks(), 2);
    let _late = node.add_pod("late");
    assert_eq!(uplinks(), 1);
    let filters = node.namespace().run("tc filter show dev spare ingress");
    assert!(!filters.contains("bpf"), "{filters}");
    assert_eq!(talk.ask_times(20).unwrap().client_ip(), NODE_1.ip(V4));
}

/// Who finds the other at work must not take that for a kernel without TCX.
#[test]
fn pods_that_come_all_at_once_leave_the_uplink_to_tcx() {
    if !has_tcx() {
        return;
    }
    // The race that was lost here is not lost every time.
    for _ in 0..3 {
        let node = Node::new();
        node.outside().listen(PORT);
        let pods: Vec<_> = std::thread::scope(|scope| {
            let adding: Vec<_> = (0..8)
                .map(|number| {
                    let node = &node;
                    scope.spawn(move || node.add_pod(&format!("web-{number}")))
                })
                .collect();
            adding.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for side in ["ingress", "egress"] {
            let filters = node.namespace().run(&format!("tc filter show dev eth0 {side}"));
            assert!(!filters.contains("bpf"), "{side}: {filters}");
        }
        for ip in Family::BOTH {
            let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
            let answer = pods[0].dial(to).ask(Tcp, "who am I?").unwrap();
            assert_eq!(answer.client_ip(), NODE_1.ip(ip));
        }
    }
}

#[test]
fn what_either_of_two_networks_exempts_is_exempt() {
    let one = exempting(Network::netplug(), &["10.0.0.0/8"]);
    let other = exempting(storage(), &["192.0.2.0/24"]);
    let node = Node::with(one);
    node.outside().listen(PORT);
    let web = node.add_pod("web");
    let store = node.add_pod_to("store", &other);
    // Whoever comes last speaks for its own network alone.
    let _last = node.add_pod("last");
    let exempt = exempt(&node);
    for cidr in ["10.0.0.0/8", "192.0.2.0/24"] {
        assert!(exempt.iter().any(|known| known == cidr), "{cidr} is not in {exempt:?}");
    }
    for (pod, actor) in [(&web, INTRANET), (&store, OUTSIDE)] {
        let answer = pod.dial(SocketAddr::new(actor.ip(V4), PORT)).ask(Tcp, "who am I?").unwrap();
        assert_eq!(answer.client_ip(), pod.ip(V4));
    }
}

/// Each adds its own to what it has read of the other's.
#[test]
fn what_two_networks_exempt_at_once_is_exempt() {
    for round in 0..3 {
        let node = Node::with(exempting(Network::netplug(), &["10.0.0.0/8"]));
        let other = exempting(storage(), &["192.0.2.0/24"]);
        std::thread::scope(|scope| {
            scope.spawn(|| node.add_pod("web"));
            scope.spawn(|| node.add_pod_to("store", &other));
        });
        let exempt = exempt(&node);
        for cidr in ["10.0.0.0/8", "192.0.2.0/24", pod_cidr(V4), "10.244.7.0/24"] {
            let is_known = exempt.iter().any(|known| known == cidr);
            assert!(is_known, "round {round}: {cidr} is not in {exempt:?}");
        }
    }
}

#[test]
fn flows_ask_again_when_what_is_exempt_changes() {
    let node = Node::with(exempting(Network::netplug(), &["10.0.0.0/8"]));
    let epoch = || node.netplug_json("status")["epoch"].as_u64().unwrap();
    let _early = node.add_pod("early");
    let before = epoch();
    let _same = node.add_pod("same");
    assert_eq!(epoch(), before, "nothing has changed");
    let changed = exempting(Network::netplug(), &["10.0.0.0/8", "192.0.2.0/24"]);
    let _late = node.add_pod_to("late", &changed);
    assert!(epoch() > before);
}

#[test]
fn what_a_network_exempts_no_more_is_masqueraded_from_its_next_pod_on() {
    let node = Node::with(exempting(Network::netplug(), &["0.0.0.0/0"]));
    node.outside().listen(PORT);
    let to = SocketAddr::new(OUTSIDE.ip(V4), PORT);
    let early = node.add_pod("early");
    let store = node.add_pod_to("store", &exempting(storage(), &["198.51.100.0/24"]));
    assert_eq!(early.dial(to).ask(Tcp, "who am I?").unwrap().client_ip(), early.ip(V4));
    let changed = exempting(Network::netplug(), &["10.0.0.0/8"]);
    let late = node.add_pod_to("late", &changed);
    let exempt = exempt(&node);
    assert!(!exempt.iter().any(|cidr| cidr == "0.0.0.0/0"), "{exempt:?}");
    for cidr in ["10.0.0.0/8", "198.51.100.0/24", pod_cidr(V4), "10.244.7.0/24"] {
        assert!(exempt.iter().any(|known| known == cidr), "{cidr} is not in {exempt:?}");
    }
    for pod in [&early, &late, &store] {
        for protocol in [Tcp, Udp] {
            let answer = pod.dial(to).ask(protocol, "who am I?").unwrap();
            assert_eq!(answer.client_ip(), NODE_1.ip(V4), "{}", pod.name());
        }
    }
}

/// Beside good ranges, too: what is written there was meant.
#[rstest]
#[case::subnet("subnet", json!({"subnet": "10.77.0.0/240"}))]
#[case::range_start("rangeStart", json!({"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.x"}))]
#[case::no_range("ipam.ranges", json!({"subnet": "10.77.0.0/24", "ranges": [[]]}))]
fn a_wrong_range_is_named_and_nothing_is_made(
    #[case] key: &str,
    #[case] range: Value,
    #[values(false, true)] beside_others: bool,
) {
    let node = Node::new();
    let mut ipam = range;
    ipam["type"] = json!("host-local");
    if beside_others {
        let mut ranges = ipam["ranges"].as_array().cloned().unwrap_or_default();
        ranges.push(json!([{"subnet": pod_cidr(V4)}]));
        ipam["ranges"] = json!(ranges);
    }
    let error = node.try_add_pod("web", &node.network().clone().with("ipam", ipam)).unwrap_err();
    assert!(error.msg.contains(key) || error.details.contains(key), "{error}");
    assert_eq!(error.code, 7, "{error}");
    node.assert_clean();
}

#[test]
fn a_pod_gets_the_address_that_the_configuration_wants_for_it() {
    let node =
        Node::with(Network::netplug().with("args", json!({"cni": {"ips": ["10.244.0.77"]}})));
    let web = node.add_pod("web");
    assert_eq!(web.ip(V4).to_string(), "10.244.0.77");
    node.check(&web).unwrap();
    node.del_pod(web);
    node.finish();
}

/// As with the reference bridge: the runtime's word counts over the configuration's, and that over CNI_ARGS'.
#[test]
fn a_pod_gets_the_mac_that_the_last_word_wants_for_it() {
    let node = Node::new();
    let by_args = node.network().clone().with("args", json!({"cni": {"mac": "02:00:00:00:00:02"}}));
    let by_runtime = by_args.clone().with("runtimeConfig", json!({"mac": "02:00:00:00:00:03"}));
    let networks = [node.network(), &by_args, &by_runtime];
    for (number, network) in (1..).zip(networks) {
        let name = format!("web-{number}");
        let (pod, attachment) = unplugged(&node, &name, "MAC=02:00:00:00:00:01");
        let result = node.runtime().add(node.namespace(), network, &attachment).unwrap();
        let wanted = format!("02:00:00:00:00:0{number}");
        assert!(pod.run("ip link show eth0").contains(&wanted), "{result}");
        node.runtime().check(node.namespace(), network, &attachment, &result).unwrap();
    }
}

#[rstest]
#[case::by_the_configuration("args", json!({"cni": {"ips": ["10.244.0.77", "10.244.0.78"]}}))]
#[case::by_the_runtime("runtimeConfig", json!({"ips": ["10.244.0.77", "10.244.0.78"]}))]
fn a_second_address_of_one_range_is_refused(#[case] key: &str, #[case] wanted: Value) {
    let node = Node::new();
    let network = node.network().clone().with(key, wanted);
    let error = node.try_add_pod("web", &network).unwrap_err();
    assert!(error.msg.contains("10.244.0.78"), "{error}");
    node.assert_clean();
}

/// What an ADD asks for the node counts once its pod is there, not where it is refused: for a HostPort that another pod has, or
/// one that its own cannot have.
#[rstest]
fn an_add_that_is_refused_changes_nothing_for_others(
    #[values(("masquerade", json!(false)), ("uplinks", json!(["spare"])), ("steering", json!("always")))]
    asks: (&str, Value),
    #[values(("", 109), ("2001:db8::1", 7))] refused: (&str, u64),
    #[values("alone", "chained")] way: &str,
) {
    let node = Node::new();
    node.namespace().run("ip link add spare type veth peer name spare-peer");
    node.outside().listen(PORT);
    let mapping = |ip: &str| json!({"portMappings": [{"hostPort": 9000, "containerPort": PORT, "hostIP": ip}]});
    let with_port = node.network().clone().with("runtimeConfig", mapping(""));
    let _web = node.add_pod_to("web", &with_port);
    let client = node.add_pod("client");
    let outside = SocketAddr::new(OUTSIDE.ip(V4), PORT);
    let mut talk = client.dial(outside).open(Tcp).unwrap();
    assert_eq!(talk.ask_times(20).unwrap().client_ip(), NODE_1.ip(V4));
    let before = what_counts(&node);
    let ipam = json!({"type": "host-local", "subnet": "10.250.1.0/24"});
    let mut other = match way {
        "chained" => Network::ptp().then_netplug(),
        _ => Network::netplug(),
    };
    other.plugins[0]["ipam"] = ipam;
    let other = other.named("other").with("runtimeConfig", mapping(refused.0)).with(asks.0, asks.1);
    let error = node.try_add_pod("late", &other).unwrap_err();
    assert_eq!(error.code, refused.1, "{error}");
    assert_eq!(what_counts(&node), before);
    assert_eq!(talk.ask_times(20).unwrap().client_ip(), NODE_1.ip(V4));
    let mut next = client.dial(outside).open(Tcp).unwrap();
    assert_eq!(next.ask_times(20).unwrap().client_ip(), NODE_1.ip(V4));
}

/// Nor does one whose second uplink takes no program: an `ingress` qdisc leaves no room for clsact.
#[test]
fn an_uplink_that_takes_no_program_changes_nothing_for_others() {
    let node = Node::new();
    for name in ["good", "full"] {
        node.namespace().run(&format!("ip link add {name} type veth peer name {name}-peer"));
    }
    node.namespace().run("tc qdisc add dev full ingress");
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let mut talk = client.dial(SocketAddr::new(OUTSIDE.ip(V4), PORT)).open(Tcp).unwrap();
    talk.ask_times(20).unwrap();
    let before = (what_counts(&node), Inventory::of(node.namespace()));
    let network = node.network().clone().with("attach", "clsact").with("steering", "always");
    let network = network.with("uplinks", json!(["good", "full"])).with("masquerade", false);
    let error = node.try_add_pod("late", &network).unwrap_err();
    assert!(format!("{error}").contains("ingress qdisc"), "{error}");
    assert_eq!(what_counts(&node), before.0);
    before.1.assert_same(&Inventory::of(node.namespace()));
    assert_eq!(talk.ask_times(20).unwrap().client_ip(), NODE_1.ip(V4));
}

/// Nor has conntrack's timeouts be others. The first ADD of all is refused as well as one that asks for other ones.
#[rstest]
fn an_add_that_is_refused_leaves_conntrack_alone(
    #[values("too many CIDRs", "an uplink that takes no program")] why: &str,
    #[values("1s", "25s")] revisit: &str,
) {
    let node = Node::new();
    node.namespace().run("ip link add full type veth peer name full-peer");
    node.namespace().run("tc qdisc add dev full ingress");
    let refused = match why {
        "too many CIDRs" => too_many_cidrs(node.network()),
        _ => node.network().clone().with("attach", "clsact").with("uplinks", json!(["full"])),
    };
    let refused = refused.with("revisit", revisit);
    let before = conntracks(&node);
    node.try_add_pod("first", &refused).unwrap_err();
    assert_eq!(conntracks(&node), before);
    let _web = node.add_pod("web");
    let asked = conntracks(&node);
    assert_ne!(asked, before);
    node.try_add_pod("late", &refused).unwrap_err();
    assert_eq!(conntracks(&node), asked);
}

/// What conntrack is told, as `sysctl` shows it; without what it counts.
fn conntracks(node: &Node) -> String {
    node.namespace().run("grep -r . /proc/sys/net/netfilter --include=nf_conntrack_tcp_* --include=nf_conntrack_udp_*")
}

#[test]
fn conntracks_timeouts_follow_the_time_after_which_flows_ask_again() {
    let node = Node::new();
    node.namespace().set_sysctl("net/netfilter/nf_conntrack_udp_timeout", "12");
    let steps = [("20s", "33"), ("1s", "14"), ("25s", "38"), ("1s", "14")];
    for (number, (revisit, timeout)) in steps.into_iter().enumerate() {
        let network = node.network().clone().with("revisit", revisit);
        let _web = node.add_pod_to(&format!("web-{number}"), &network);
        let now = node.namespace().run("cat /proc/sys/net/netfilter/nf_conntrack_udp_timeout");
        assert_eq!(now.trim(), timeout, "{revisit}");
    }
}

/// Old and new are exempt together for a moment.
#[test]
fn all_that_is_exempt_may_give_way_to_as_much_else() {
    let many = |first: usize| -> Vec<String> {
        let of = |number: usize| format!("11.{}.{}.0/24", first + number / 256, number % 256);
        (0..1_000).map(of).collect()
    };
    let asking = |cidrs: &[String]| {
        Network::netplug().with("masquerade", json!({"nonMasqueradeCIDRs": cidrs}))
    };
    let node = Node::with(asking(&many(0)));
    let _early = node.add_pod("early");
    let others = many(100);
    let _late = node.add_pod_to("late", &asking(&others));
    let mut found = exempt(&node);
    found.retain(|cidr| cidr.starts_with("11."));
    assert_eq!(BTreeSet::from_iter(found), BTreeSet::from_iter(others));
}

#[test]
fn a_second_interface_leaves_the_default_route_to_the_first() {
    let node = Node::new();
    let web = node.add_pod("web");
    let before = defaults(&web);
    let second = Attachment { interface: "net1".into(), ..web.attachment().clone() };
    let network = storage();
    let result = node.runtime().add(node.namespace(), &network, &second).unwrap();
    assert!(!has_default(&destinations(&result)), "{result}");
    assert_eq!(defaults(&web), before);
    node.runtime().check(node.namespace(), &network, &second, &result).unwrap();
    node.check(&web).unwrap();
    node.runtime().del(node.namespace(), &network, &second, Some(&result)).unwrap();
    node.check(&web).unwrap();
}

#[test]
fn a_pod_that_is_to_have_no_default_route_has_none() {
    let mut network = Network::netplug().with("isDefaultGateway", false);
    network.plugins[0]["ipam"]["routes"] = json!([]);
    let node = Node::with(network);
    let web = node.add_pod("web");
    assert!(!has_default(&destinations(web.result())), "{}", web.result());
    assert_eq!(defaults(&web), "");
    node.check(&web).unwrap();
    node.del_pod(web);
    node.finish();
}

/// As an operator may have it: who makes a device says whether it forwards.
#[rstest]
fn pods_reach_others_where_new_devices_do_not_forward(
    #[values("alone", "bridge", "ptp")] way: &str,
    #[values(V4, V6)] ip: Family,
) {
    let node = Node::new();
    for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        node.namespace().set_sysctl(&format!("net/{name}"), "1");
    }
    for family in ["ipv4", "ipv6"] {
        node.namespace().set_sysctl(&format!("net/{family}/conf/default/forwarding"), "0");
    }
    node.outside().listen(PORT);
    let [web, client] = ["web", "client"].map(|name| match way {
        "alone" => node.add_pod(name),
        _ => node.add_pod_chained(name, way),
    });
    let web = web.listening(PORT);
    for to in [web.at(ip, PORT), SocketAddr::new(OUTSIDE.ip(ip), PORT)] {
        for protocol in [Tcp, Udp] {
            client.dial(to).open(protocol).unwrap().ask_times(30).unwrap();
        }
    }
}

/// As templates have it, which say nothing by it.
#[rstest]
fn dns_that_names_nothing_leaves_it_to_resolv_conf(
    #[values(json!({}), json!({"nameservers": null, "domain": ""}))] dns: Value,
) {
    let node = Node::new();
    node.namespace().feed("tee /run/resolv.conf", "nameserver 10.0.0.10\n");
    let mut network = Network::netplug().with("dns", dns);
    network.plugins[0]["ipam"]["resolvConf"] = json!("/run/resolv.conf");
    let web = node.add_pod_to("web", &network);
    assert_eq!(web.result()["dns"], json!({"nameservers": ["10.0.0.10"]}));
}
