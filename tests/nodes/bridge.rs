//! The bridge and its addresses, where ADDs fail, come at once or are killed.

use std::fs::File;
use std::process::Command;

use netplug::datapath::{Datapath, Lock};
use netplug::node::bridge::Kept;
use netplug_tests::cast::Family::{self, V4};
use netplug_tests::cast::{GATEWAY, WEB};
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::runtime::{Verb, config};
use netplug_tests::traffic::{PATIENCE, ping};
use rstest::rstest;
use serde_json::json;

use crate::faults::{too_many_cidrs, unplugged};
use crate::scene::{endpoint, waits_for, waits_no_more_for};

fn has_bridge(node: &Node) -> bool {
    !node.namespace().run("ip link show type bridge").is_empty()
}

fn addresses(node: &Node) -> Vec<String> {
    let shown = node.namespace().run("ip -oneline address show dev cbr0 scope global");
    let fourth = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    let mut found: Vec<_> = shown.lines().filter_map(fourth).collect();
    found.sort();
    found
}

/// A second network's gateway takes the place of the first's, and then its ADD fails: the pods that were there have theirs
/// again, and who has come meanwhile keeps his.
#[rstest]
fn an_add_that_fails_gives_the_bridge_its_addresses_back(
    #[values(false, true)] is_anothers: bool,
    #[values(false, true)] somebody_comes: bool,
) {
    const OTHER: &str = "10.244.0.254";
    let node = Node::new();
    if is_anothers {
        node.namespace().run("ip link add cbr0 type bridge");
    }
    let web = node.add_pod("web");
    let before = addresses(&node);
    let mut second = node.network().clone().named("second").with("forceAddress", true);
    second.plugins[0]["ipam"]["ranges"] =
        json!([[{"subnet": "10.244.0.0/16", "rangeStart": "10.244.9.1", "gateway": OTHER}]]);
    let many = too_many_cidrs(&second);
    let removes_none = node.namespace().enter(|| Kept::shared().unwrap());
    let other = std::thread::scope(|scope| {
        let failing = scope.spawn(|| node.try_add_pod("many", &many).unwrap_err());
        waits_for(&node, "bridges.lock");
        assert_ne!(addresses(&node), before);
        let other = somebody_comes.then(|| node.add_pod_to("other", &second));
        drop(removes_none);
        failing.join().unwrap();
        other
    });
    let mut wanted = before;
    wanted.extend(other.is_some().then(|| format!("{OTHER}/16")));
    wanted.sort();
    assert_eq!(addresses(&node), wanted);
    let next = node.add_pod("next");
    for pod in [&web, &next] {
        node.check(pod).unwrap();
        for ip in Family::BOTH {
            eventually(SOON, || ping(pod.namespace(), GATEWAY.ip(ip), 77, 64, PATIENCE));
        }
    }
    if let Some(other) = other {
        ping(other.namespace(), OTHER.parse().unwrap(), 77, 64, PATIENCE).unwrap();
        node.del_pod(other);
    }
    node.del_pod(web);
    node.del_pod(next);
    nothing_is_left(node, is_anothers);
}

/// Once all pods are gone: of another's bridge, it stays, without addresses.
fn nothing_is_left(node: Node, is_anothers: bool) {
    if is_anothers {
        node.netplug("unload");
        assert!(addresses(&node).is_empty(), "{:?}", addresses(&node));
    } else {
        node.finish();
    }
}

/// Who made the bridge fails while another has a port there, and leaves it to him; then he fails, too.
#[test]
fn the_last_add_that_fails_takes_the_bridge_away() {
    let node = Node::new();
    node.netplug("load");
    let holder = endpoint(&node, "other", WEB.ip(V4));
    let inside = |work: &(dyn Fn(&Datapath) + Sync)| {
        node.namespace().enter(|| work(&Datapath::open().unwrap().unwrap()));
    };
    inside(&|datapath| datapath.register(&holder).unwrap());
    let (_pod, attachment) = unplugged(&node, "web", &format!("IP={}", WEB.ip(V4)));
    // Refused once the bridge is there, and before it registers.
    let (pod, taken) = unplugged(&node, "taken", "");
    pod.run("ip link add eth0 type bridge");
    let removes_none = node.namespace().enter(|| Kept::shared().unwrap());
    let registers_none = node.namespace().enter(|| {
        let file = File::open("/run/netplug/addresses.lock").unwrap();
        file.lock().unwrap();
        file
    });
    std::thread::scope(|scope| {
        let maker = scope
            .spawn(|| node.runtime().add(node.namespace(), node.network(), &taken).unwrap_err());
        waits_for(&node, "bridges.lock");
        let last = scope.spawn(|| {
            node.runtime().add(node.namespace(), node.network(), &attachment).unwrap_err()
        });
        waits_for(&node, "addresses.lock");
        drop(removes_none);
        maker.join().unwrap();
        assert!(has_bridge(&node));
        drop(registers_none);
        last.join().unwrap();
    });
    assert!(!has_bridge(&node));
    inside(&|datapath| drop(datapath.unregister(holder.owner).unwrap()));
    node.namespace().run("ip link del other");
    node.finish();
}

/// The gateway that the first gave the bridge is the second's, too; then both are refused.
#[rstest]
fn the_last_add_that_fails_takes_the_gateway_back(#[values(false, true)] is_anothers: bool) {
    let node = Node::new();
    if is_anothers {
        node.namespace().run("ip link add cbr0 type bridge");
    }
    let early = node.add_pod_to("early", &Network::netplug().with("isGateway", false));
    assert!(addresses(&node).is_empty());
    let refused = too_many_cidrs(node.network());
    let lock = |name: &str| {
        let path = format!("/run/netplug/{name}");
        node.namespace().enter(|| {
            let file = File::open(path).unwrap();
            file.lock().unwrap();
            file
        })
    };
    let removes_none = node.namespace().enter(|| Kept::shared().unwrap());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| node.try_add_pod("first", &refused).map(drop).unwrap_err());
        waits_for(&node, "bridges.lock");
        let registers_none = lock("addresses.lock");
        let second = scope.spawn(|| node.try_add_pod("second", &refused).map(drop).unwrap_err());
        waits_for(&node, "addresses.lock");
        drop(removes_none);
        waits_no_more_for(&node, "bridges.lock");
        drop(node.namespace().enter(|| Kept::shared().unwrap()));
        // The second may end well yet.
        assert_eq!(addresses(&node).len(), 2);
        drop(registers_none);
        first.join().unwrap();
        second.join().unwrap();
    });
    assert!(addresses(&node).is_empty(), "{:?}", addresses(&node));
    let next = node.add_pod("next");
    node.check(&next).unwrap();
    node.try_add_pod("late", &refused).unwrap_err();
    for ip in Family::BOTH {
        ping(next.namespace(), GATEWAY.ip(ip), 77, 64, PATIENCE).unwrap();
    }
    node.del_pod(next);
    node.del_pod(early);
    nothing_is_left(node, is_anothers);
}

/// Another plugin finds the gateway on the bridge, and leaves it at that.
#[test]
fn a_gateway_that_another_plugins_pod_found_stays() {
    let node = Node::new();
    let _early = node.add_pod_to("early", &Network::netplug().with("isGateway", false));
    let refused = too_many_cidrs(node.network());
    let removes_none = node.namespace().enter(|| Kept::shared().unwrap());
    let web = std::thread::scope(|scope| {
        let failing = scope.spawn(|| node.try_add_pod("first", &refused).map(drop).unwrap_err());
        waits_for(&node, "bridges.lock");
        let web = node.add_pod_chained("web", "bridge");
        drop(removes_none);
        failing.join().unwrap();
        web
    });
    for ip in Family::BOTH {
        ping(web.namespace(), GATEWAY.ip(ip), 77, 64, PATIENCE).unwrap();
    }
}

/// The kernel gives a device of so small an MTU no address of IPv6.
#[test]
fn an_address_that_an_operator_gives_after_netplug_could_not_is_the_operators() {
    let node = Node::new();
    node.namespace().run("ip link add cbr0 type bridge");
    node.namespace().run("ip link set cbr0 mtu 1200");
    let network = node.network().clone().with("mtu", 1500);
    let error = node.try_add_pod("web", &network).unwrap_err();
    let gateway = GATEWAY.v6.to_string();
    assert!(error.msg.contains(&gateway), "{error}");
    assert!(addresses(&node).is_empty(), "{:?}", addresses(&node));
    node.namespace().run("ip link set cbr0 mtu 1500");
    node.namespace().run(&format!("ip address add {gateway}/64 dev cbr0 nodad"));
    node.netplug("unload");
    assert_eq!(addresses(&node), [format!("{gateway}/64")]);
}

/// At whatever it asks of the kernel's network.
#[test]
fn an_add_that_is_killed_leaves_nothing_once_pods_and_netplug_are_gone() {
    let node = Node::new();
    node.netplug("load");
    let (_pod, attachment) = unplugged(&node, "web", "");
    let config = config(node.network(), &node.network().plugins[0], None).to_string();
    let add = node.runtime().command(Verb::Add, "netplug", &attachment);
    for request in 1.. {
        let mut killed = Command::new("strace");
        killed.args(["-f", "-o", "/dev/null", "-e", "trace=sendto", "-e"]);
        killed.arg(format!("inject=sendto:signal=KILL:when={request}")).arg(add.get_program());
        killed.env_clear().envs(add.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let is_through = node.namespace().output(killed, config.as_bytes()).status.success();
        node.runtime().del(node.namespace(), node.network(), &attachment, None).unwrap();
        // As `netplug unload` does; loading anew each time would take long.
        node.namespace().enter(|| {
            let _lock = Lock::exclusive().unwrap();
            netplug::node::state::restore().unwrap();
        });
        assert!(!has_bridge(&node), "killed at request {request}");
        node.assert_clean();
        if is_through {
            assert!(request > 20, "an ADD of {request} requests");
            break;
        }
    }
    node.finish();
}
