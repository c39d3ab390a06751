//! `netplug adopt`: bridges that netplug did not make, with `bridge-nf-call-iptables=0`.

use netplug::datapath::Datapath;
use netplug_common::counter::Counter;
use netplug_common::maps::LAYOUT;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::counters::{Counters, endpoints, flows};
use netplug_tests::eventually::{SOON, becomes, eventually};
use netplug_tests::kernel::has_tcx;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use netplug_tests::traffic::{IMPATIENCE, PATIENCE};
use netplug_tests::{leftovers, rules};
use rstest::rstest;
use serde_json::json;

use crate::containers::{BRIDGE, Container, add_bridge, address, mac_of};
use crate::scene::{PORT, endpoint};

/// A node with a service of a container's, and another container.
fn scene() -> (Node, Container, Container) {
    let node = Node::new();
    add_bridge(&node);
    let [web, client] = [2, 3].map(|number| Container::add(&node, number));
    web.serve(&node);
    (node, web, client)
}

/// What the container gets from the service, of either family and transport.
#[track_caller]
fn is_served(client: &Container) {
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            client.asks_service(family, protocol, 3).expect("the service answers");
        }
    }
}

/// The same where it takes its time: who has gone is still looked for, and addresses are tried out.
#[track_caller]
fn comes_to_be_served(client: &Container) {
    for family in Family::BOTH {
        for protocol in Protocol::BOTH {
            eventually(SOON, || client.asks_service(family, protocol, 3));
        }
    }
}

/// The filters at a port's ingress.
fn filters(node: &Node, port: &str) -> String {
    node.namespace().run(&format!("tc filter show dev {port} ingress"))
}

#[rstest]
fn a_service_answers_a_container_of_its_own_bridge(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let (node, _web, client) = scene();
    client.asks_service(ip, protocol, 1).unwrap_err();
    let said = node.netplug("adopt docker0");
    assert!(said.contains("veth2") && said.contains("veth3"), "{said}");
    let before = Counters::of(&node);
    assert_eq!(client.asks_service(ip, protocol, 50).unwrap(), "c2");
    // Nothing is learned, and nobody known: each packet visits.
    let seen = Counters::of(&node).since(&before);
    assert!(seen.get(Counter::Aside) >= 100, "{seen:?}");
    assert_eq!((seen.get(Counter::Visit), seen.hits(), seen.drops()), (0, 0, 0));
    assert!(flows(&node).is_empty() && endpoints(&node).is_empty());
    let status = node.netplug_json("status");
    assert_eq!(status["adopted"][0]["ports"], json!(["veth2", "veth3"]), "{status}");
    assert!(node.netplug("status").contains("docker0: veth2, veth3"));
}

/// Without the host's L3 there is no rule between two of one bridge: Docker's `icc=false` was none without br_netfilter.
#[rstest]
fn rules_between_containers_are_obeyed(#[values(V4, V6)] ip: Family) {
    let (node, web, client) = scene();
    rules::forbid(node.namespace(), client.ip(ip), web.ip(ip));
    let dial = client.dial((web.ip(ip), PORT).into()).patience(IMPATIENCE);
    dial.ask(Udp, "hello").unwrap();
    node.netplug("adopt docker0");
    dial.ask(Udp, "hello").unwrap_err();
    assert!(rules::forbidden(node.namespace(), client.ip(ip), web.ip(ip)) > 0);
    node.netplug("release docker0");
    dial.ask(Udp, "hello").unwrap();
}

/// Docker and podman give each container a veth of its own, for as long as it lives.
#[rstest]
fn a_port_that_comes_later_is_steered(#[values(false, true)] is_watched: bool) {
    let (node, web, _client) = scene();
    let watcher = is_watched.then(|| node.watch(""));
    if let Some(watcher) = &watcher {
        // It has begun to watch.
        eventually(SOON, || {
            let said = node.netplug_json("adopt docker0");
            if said["adopted"]["watched"] == true { Ok(()) } else { Err(watcher.said()) }
        });
    } else {
        let said = node.netplug("adopt docker0");
        assert!(said.contains("netplug watch"), "{said}");
    }
    let late = Container::add(&node, 9);
    // Its answers come by its own port.
    late.serve(&node);
    if !is_watched {
        web.asks_service(V4, Udp, 1).unwrap_err();
        node.netplug("adopt docker0");
    }
    comes_to_be_served(&web);
    assert!(filters(&node, &late.port()).contains("from_pod"));
}

/// By who begins to watch only then, or by who adopts again.
#[rstest]
fn a_port_that_goes_elsewhere_is_let_go(
    #[values(false, true)] is_gone: bool,
    #[values(false, true)] is_watched: bool,
) {
    let (node, web, client) = scene();
    node.netplug("adopt docker0");
    let port = web.port();
    if is_gone {
        web.remove(&node);
    } else {
        node.namespace().run(&format!("ip link set {port} nomaster"));
    }
    assert_eq!(leftovers::of_pods(node.namespace()).len(), 2);
    let _watcher = is_watched.then(|| node.watch(""));
    if !is_watched {
        node.netplug("adopt docker0");
    }
    becomes(SOON, 1, || leftovers::of_pods(node.namespace()).len());
    if !is_gone {
        becomes(SOON, String::new(), || filters(&node, &port));
        let qdiscs = node.namespace().run(&format!("tc qdisc show dev {port}"));
        assert!(!qdiscs.contains("clsact"), "{qdiscs}");
    }
    // And as it happens.
    node.namespace().run(&format!("ip link set {} nomaster", client.port()));
    if !is_watched {
        node.netplug("adopt docker0");
    }
    becomes(SOON, 0, || leftovers::of_pods(node.namespace()).len());
}

/// A bridge that was given no MAC has its lowest port's, and another when that goes or a lower one comes, be anybody watching or not.
#[test]
fn the_bridges_mac_may_change() {
    let (node, web, client) = scene();
    let lowest = Container::add(&node, 50);
    // What containers know of their gateway is theirs to find out, and takes them its time.
    let forget = || {
        for container in [&web, &client] {
            container.namespace().run("ip neigh flush dev eth0");
        }
    };
    node.netplug("adopt docker0");
    is_served(&client);
    let before = mac_of(&node, BRIDGE);
    lowest.remove(&node);
    assert_ne!(mac_of(&node, BRIDGE), before);
    forget();
    comes_to_be_served(&client);
    let _lower = Container::add(&node, 60);
    assert_ne!(mac_of(&node, BRIDGE), before);
    forget();
    comes_to_be_served(&client);
}

/// Containers' answers then come to the host by its bridge hooks first.
#[test]
fn others_may_have_bridges_call_iptables() {
    let (node, _web, client) = scene();
    node.netplug("adopt docker0");
    if !node.bridge_netfilter(true) {
        eprintln!("skipped: this kernel has no br_netfilter to be switched on");
        return;
    }
    is_served(&client);
}

#[test]
fn the_mac_of_a_port_may_change_where_somebody_watches() {
    let (node, web, client) = scene();
    let _watcher = node.watch("");
    node.netplug("adopt docker0");
    is_served(&client);
    node.namespace().run(&format!("ip link set {} address fe:00:00:00:00:77", web.port()));
    comes_to_be_served(&client);
}

#[test]
fn a_bridge_that_is_made_anew_is_adopted_again_by_who_watches() {
    let (node, web, client) = scene();
    let _watcher = node.watch("");
    node.netplug("adopt docker0");
    is_served(&client);
    node.namespace().run("ip link del docker0");
    becomes(SOON, 0, || leftovers::of_pods(node.namespace()).len());
    assert!(node.netplug("status").contains("docker0: is not there"));
    add_bridge(&node);
    for port in [web.port(), client.port()] {
        node.namespace().run(&format!("ip link set {port} master docker0"));
    }
    comes_to_be_served(&client);
    becomes(SOON, "0".into(), || {
        node.namespace().sysctl("net/ipv4/conf/docker0/send_redirects").unwrap()
    });
}

/// As an upgrade does, by clsact and by TCX, which a qdisc of others' leaves.
#[rstest]
fn programs_are_replaced_where_they_are(#[values(false, true)] has_ingress: bool) {
    if has_ingress && !has_tcx() {
        return;
    }
    let (node, web, client) = scene();
    if has_ingress {
        for port in [web.port(), client.port()] {
            node.namespace().run(&format!("tc qdisc add dev {port} ingress"));
        }
    }
    node.netplug("adopt docker0");
    let ids = || {
        let shown =
            node.namespace().run("bpftool -j prog show pinned /sys/fs/bpf/netplug/v1/from_pod");
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown["id"].as_u64().unwrap()
    };
    assert_eq!(LAYOUT, 1);
    let old = ids();
    node.namespace().run("rm /run/netplug/loaded");
    node.netplug("load");
    let new = ids();
    assert_ne!(new, old);
    // The old one is nobody's any more.
    becomes(SOON, false, || {
        let loaded = node.namespace().run("bpftool -j prog show");
        loaded.contains(&format!("\"id\":{old},"))
    });
    is_served(&client);
}

/// An ADD finds its port adopted already: what others have learned it leaves alone.
#[test]
fn who_registers_takes_an_adopted_port_over() {
    let node = Node::new();
    add_bridge(&node);
    let mut pod = endpoint(&node, "pod", address(V4, 9));
    node.namespace().run("ip link set pod master docker0");
    let adopted = node.netplug_json("adopt docker0");
    assert_eq!(adopted["adopted"]["ports"], json!(["pod"]), "{adopted}");
    let epoch = || node.netplug_json("status")["epoch"].clone();
    let before = epoch();
    pod.bridge = Some(1);
    node.namespace().enter(|| {
        let datapath = Datapath::open().unwrap().unwrap();
        datapath.register(&pod).unwrap();
        assert_eq!(datapath.check(&pod).unwrap(), Vec::<String>::new());
    });
    assert_eq!((epoch(), endpoints(&node).len()), (before, 1));
    let adopted = node.netplug_json("adopt docker0");
    assert_eq!(adopted["adopted"]["left_alone"][0]["port"], "pod", "{adopted}");
    node.namespace().enter(|| {
        Datapath::open().unwrap().unwrap().unregister(pod.owner).unwrap();
    });
    let pins = node.namespace().run("ls /sys/fs/bpf/netplug/v1");
    assert!(!pins.contains("clsact"), "{pins}");
}

/// Its address is the node's, and no gateway of pods'.
#[test]
fn an_adopted_bridge_may_be_the_nodes_way_out() {
    let node = Node::with(Network::netplug().with("uplinks", [BRIDGE]));
    add_bridge(&node);
    let _guest = Container::add(&node, 2);
    node.netplug("adopt docker0");
    let _pod = node.add_pod("pod");
    let shown = node.netplug_json("masquerade show");
    let addresses = &shown["masquerade"]["uplinks"][0]["addresses"];
    assert_eq!(addresses, &json!(Family::BOTH.map(|family| address(family, 1))), "{shown}");
}

/// What another plugin's pod has on the bridge stays its own: whichever was first.
#[rstest]
fn a_pods_port_stays_the_pods(#[values(false, true)] pod_is_first: bool) {
    let node = Node::new();
    let first = pod_is_first.then(|| node.add_pod_chained("web", "bridge"));
    let early = (!pod_is_first).then(|| node.add_pod_chained("early", "bridge"));
    let watcher = (!pod_is_first).then(|| node.watch(""));
    if let Some(early) = early {
        // The bridge is there, and nobody on it.
        node.del_pod(early);
    }
    let adopted = node.netplug_json("adopt cbr0");
    let web = first.unwrap_or_else(|| node.add_pod_chained("web", "bridge")).listening(PORT);
    if pod_is_first {
        assert_eq!(adopted["adopted"]["left_alone"][0]["port"], web.host_end(), "{adopted}");
    }
    let adopted = node.netplug_json("adopt cbr0");
    assert_eq!(adopted["adopted"]["ports"], json!([]), "{adopted}");
    node.check(&web).unwrap();
    assert_eq!(endpoints(&node).len(), 1);
    let guarded = node.netplug("endpoints");
    assert!(guarded.contains("yes"), "{guarded}");
    let client = node.add_pod_chained("client", "bridge");
    for family in Family::BOTH {
        let mut talk = client.dial(web.at(family, PORT)).patience(PATIENCE).tcp().unwrap();
        talk.ask_times(30).unwrap();
    }
    assert!(!flows(&node).is_empty(), "pods' flows are learned");
    node.netplug("release cbr0");
    node.check(&web).unwrap();
    node.del_pod(web);
    node.del_pod(client);
    drop(watcher);
    node.finish();
}
