//! A pod goes and another gets its address while a client keeps asking.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netplug::datapath::{Attach, Datapath, Endpoint, Owner};
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{OUTSIDE, WEB};
use netplug_tests::counters::Counters;
use netplug_tests::eventually::{SOON, eventually};
use netplug_tests::network::NAME;
use netplug_tests::node::Node;
use netplug_tests::rules::{self, Service};
use netplug_tests::traffic::IMPATIENCE;
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;
use serde_json::json;

use crate::scene::PORT;
use crate::scene::Steering::{self, Always, Direct, Learn};

/// A network with room for the gateway and two pods: who comes next gets the address of who went.
fn small(steering: Steering) -> netplug_tests::network::Network {
    let mut network = steering.network();
    network.plugins[0]["ipam"]["ranges"] = json!([
        [{"subnet": "10.244.0.0/24", "rangeStart": "10.244.0.10", "rangeEnd": "10.244.0.11"}],
        [{"subnet": "fd00:244::/64", "rangeStart": "fd00:244::10", "rangeEnd": "fd00:244::11"}],
    ]);
    network
}

#[rstest]
fn the_newcomer_answers_and_nobody_else(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
    #[values(Learn, Always, Direct)] steering: Steering,
) {
    let node = Node::with(small(steering));
    let client = node.add_pod("client");
    let old = node.add_pod("old").listening(PORT);
    let at = old.at(ip, PORT);
    rules::serve(node.namespace(), &Service::both(80, &[at]));
    let service = Service::new(protocol, 80, &[at]).at;
    for to in [at, service] {
        client.dial(to).open(protocol).unwrap().ask_times(30).unwrap();
    }
    node.del_pod(old);
    let impatient = Duration::from_millis(100);
    client.dial(at).patience(impatient).ask(protocol, "anyone?").unwrap_err();
    let new = node.add_pod("new").listening(PORT);
    assert_eq!(new.at(ip, PORT), at);
    for to in [at, service] {
        let answer =
            eventually(SOON, || client.dial(to).patience(impatient).ask(protocol, "who are you?"));
        assert_eq!(answer.server, "new");
        client.dial(to).open(protocol).unwrap().ask_times(30).unwrap();
    }
}

/// A node may lose a pod and its lease without a DEL: the flows that led there must not outlive it.
#[rstest]
fn the_newcomer_answers_at_once_where_a_pod_vanished(#[values(V4, V6)] ip: Family) {
    let node = Node::with(small(Learn));
    let client = node.add_pod("client");
    let old = node.add_pod("old").listening(PORT);
    let at = old.at(ip, PORT);
    let mut talk = client.dial(at).open(Udp).unwrap();
    talk.ask_times(30).unwrap();
    node.namespace().run(&format!("ip link delete {}", old.host_end()));
    for family in Family::BOTH {
        let lease = format!("/var/lib/cni/networks/{NAME}/{}", old.ip(family));
        node.namespace().run(&format!("rm {lease}"));
    }
    let new = node.add_pod("new").listening(PORT);
    assert_eq!(new.at(ip, PORT), at);
    assert_eq!(talk.ask("who are you?").unwrap().server, "new");
    node.del_pod(new);
    node.detach(&old).unwrap();
}

#[test]
fn no_address_is_left_then_one_is() {
    let node = Node::with(small(Learn));
    let pods = ["one", "two"].map(|name| node.add_pod(name));
    let error = node.try_add_pod("three", node.network()).unwrap_err();
    assert_eq!(error.code, 11, "{error}");
    let [one, _two] = pods;
    node.del_pod(one);
    node.add_pod("four");
}

/// Answers come while the pod is deleted: nothing may remember it for the next one with its address.
#[rstest]
fn a_pod_that_goes_under_load_leaves_no_mapping(
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::with(small(Learn));
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let to = std::net::SocketAddr::new(OUTSIDE.ip(ip), PORT);
    // On a fresh link IPv6's first question for a neighbour is lost, and asked again after a second.
    client.dial(to).ask(protocol, "first").unwrap();
    let dial = client.dial(to).patience(IMPATIENCE);
    let mut talks: Vec<_> = (0..4).map(|_| dial.open(protocol).unwrap()).collect();
    let is_gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for talk in &mut talks {
            let is_gone = &is_gone;
            scope.spawn(move || {
                while !is_gone.load(Ordering::SeqCst) {
                    // Until the pod goes there are answers, then there are none.
                    let _ = talk.ask("more");
                }
            });
        }
        eventually(SOON, || match Counters::of(&node).hits() {
            hits if hits > 1_000 => Ok(()),
            hits => Err(hits),
        });
        node.detach(&client).unwrap();
        is_gone.store(true, Ordering::SeqCst);
    });
    assert_eq!(node.netplug_json("nat")["mappings"], json!([]));
    let status = node.netplug_json("status");
    assert_eq!((&status["endpoints"], &status["mappings"]), (&json!(0), &json!(0)));
}

/// What is sent before both ends carry packets is lost, and nobody sends it again.
#[rstest]
fn a_pod_is_reached_as_soon_as_it_is_there(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    let client = node.add_pod("client");
    for number in 0..10 {
        let pod = node.add_pod(&format!("pod-{number}")).listening(PORT);
        client.dial(pod.at(ip, PORT)).ask(Udp, "there?").unwrap();
    }
}

/// Whoever gives out addresses, networks with leases of their own or other plugins, may give one out twice.
#[rstest]
fn an_address_that_two_ask_for_at_once_goes_to_one(#[values(V4, V6)] ip: Family) {
    let node = Node::new();
    node.netplug("load");
    let add = |name: &str| {
        node.namespace().run(&format!("ip link add {name} type veth peer name {name}-peer"));
        let shown = node.namespace().run(&format!("ip -json link show {name}"));
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        Endpoint {
            ifindex: u32::try_from(shown[0]["ifindex"].as_u64().unwrap()).unwrap(),
            owner: Owner::of("pods", name, "eth0"),
            bridge: None,
            gateway_mac: [2, 0, 0, 0, 0, 1],
            pod_mac: [2, 0, 0, 0, 0, 2],
            addresses: vec![WEB.ip(ip)],
            unrouted: Vec::new(),
            source_guard: true,
            attach: Attach::Clsact,
        }
    };
    let both = [add("one"), add("two")];
    let inside = |work: &(dyn Fn(&Datapath) -> usize + Sync)| {
        node.namespace().enter(|| work(&Datapath::open().unwrap().unwrap()))
    };
    for round in 0..30 {
        let start = Barrier::new(2);
        let given: usize = std::thread::scope(|scope| {
            let register = |endpoint| {
                let (start, inside) = (&start, &inside);
                scope.spawn(move || {
                    inside(&|datapath| {
                        start.wait();
                        usize::from(datapath.register(endpoint).is_ok())
                    })
                })
            };
            let registering = both.each_ref().map(register);
            registering.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(given, 1, "in round {round}");
        let holders = inside(&|datapath| {
            let known = datapath.endpoints().unwrap();
            both.iter().for_each(|endpoint| drop(datapath.unregister(endpoint.owner).unwrap()));
            known.iter().map(|endpoint| endpoint.addresses.len()).sum()
        });
        assert_eq!(holders, 1, "in round {round}");
    }
}
