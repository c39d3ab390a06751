//! A bridge that has not the pods' gateway, as of the reference `bridge` plugin by default: the host routes nothing there, so
//! what pods say to one another is the bridge's alone.

use netplug_common::counter::Counter;
use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{GATEWAY, OUTSIDE, SERVICE, pod_cidr};
use netplug_tests::counters::{Counters, flows};
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::pod::Pod;
use netplug_tests::rules::{self, Service};
use netplug_tests::runtime::{Attachment, Verb, config};
use netplug_tests::traffic::{IMPATIENCE, Protocol};
use rstest::rstest;
use serde_json::json;

use crate::faults::too_many_cidrs;
use crate::scene::PORT;

/// netplug by itself, or behind the reference plugin with its default.
fn network(way: &str) -> Network {
    if way == "alone" {
        return Network::netplug().with("isGateway", false);
    }
    let mut bridge = Network::bridge();
    bridge.plugins[0]["isGateway"] = json!(false);
    bridge.then_netplug()
}

/// Gives the bridge the gateway of a family, as an operator may.
fn give_gateway(node: &Node, family: Family) {
    let (_, prefix) = pod_cidr(family).split_once('/').expect("a CIDR has a prefix");
    let nodad = if family == V6 { "nodad" } else { "" };
    let gateway = GATEWAY.ip(family);
    node.namespace().run(&format!("ip address add {gateway}/{prefix} dev cbr0 {nodad}"));
}

#[track_caller]
fn reach_one_another(client: &Pod, web: &Pod, family: Family) {
    for protocol in Protocol::BOTH {
        let mut talk = client.dial(web.at(family, PORT)).open(protocol).expect("the pod listens");
        let answer = talk.ask_times(30).expect("the pod answers");
        assert_eq!((answer.server.as_str(), answer.client_ip()), (web.name(), client.ip(family)));
    }
}

#[track_caller]
fn reach_by_service(node: &Node, client: &Pod, web: &Pod, family: Family) {
    rules::serve(node.namespace(), &Service::both(80, &[web.at(family, PORT)]));
    for protocol in Protocol::BOTH {
        let mut talk =
            client.dial((SERVICE.ip(family), 80).into()).open(protocol).expect("the pod listens");
        let answer = talk.ask_times(30).expect("the pod answers as the service");
        assert_eq!(answer.server, web.name());
    }
}

#[rstest]
fn pods_reach_one_another_as_by_a_plain_bridge(
    #[values("alone", "chained")] way: &str,
    #[values("learn", "always", "direct")] steering: &str,
    #[values(V4, V6)] family: Family,
) {
    let node = Node::with(network(way).with("steering", steering));
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    reach_one_another(&client, &web, family);
    let uplink = OUTSIDE.ip(family);
    assert!(flows(&node).iter().all(|flow| !flow.is_between(client.ip(family), uplink)));
    for pod in [&web, &client] {
        node.check(pod).unwrap();
    }
    node.del_pod(client);
    node.del_pod(web);
    node.finish();
}

/// Nothing else would tell why services fail there.
#[rstest]
fn an_add_warns_of_it_once(#[values("alone", "chained")] way: &str) {
    let node = Node::with(network(way));
    let mut said = Vec::new();
    for gateways in [&[][..], &[V4], &[V6]] {
        gateways.iter().for_each(|family| give_gateway(&node, *family));
        said.push(warnings_of_an_add(&node, &format!("web-{}", said.len()), "isGateway"));
    }
    for (said, addresses) in said.iter().zip(["10.244.", "fd00:"]) {
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(addresses) && said[0].contains("isGateway"), "{said:?}");
    }
    assert!(!said[1][0].contains("10.244."), "{said:?}");
    assert!(said[2].is_empty(), "{said:?}");
}

/// What netplug's ADD of a pod says of something.
pub fn warnings_of_an_add(node: &Node, name: &str, about: &str) -> Vec<String> {
    let namespace = node.namespace().pod(name);
    namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    let attachment = Attachment {
        container: format!("{name}-0001"),
        netns: Namespace::pod_path(name),
        interface: "eth0".into(),
        args: String::new(),
    };
    let (before, own) = node.network().plugins.split_at(node.network().plugins.len() - 1);
    let first = Network { plugins: before.to_vec(), ..node.network().clone() };
    let result = node
        .runtime()
        .add(node.namespace(), &first, &attachment)
        .expect("the first plugin succeeds");
    let previous = (!before.is_empty()).then_some(&result);
    let config = config(node.network(), &own[0], previous);
    let command = node.runtime().command(Verb::Add, "netplug", &attachment);
    let output = node.namespace().output(command, config.to_string().as_bytes());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said.lines().filter(|line| line.contains(about)).map(str::to_owned).collect()
}

/// Each family by itself: what the host does route is brought before it.
#[rstest]
fn a_gateway_of_one_family_serves_that_family(#[values("alone", "chained")] way: &str) {
    let node = Node::with(network(way));
    node.namespace().run("ip link add cbr0 type bridge");
    node.namespace().run("ip link set cbr0 up");
    give_gateway(&node, V4);
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    reach_by_service(&node, &client, &web, V4);
    reach_one_another(&client, &web, V6);
}

#[rstest]
fn a_gateway_that_came_later_serves_all_from_the_next_add_on(
    #[values("alone", "chained")] way: &str,
    #[values(V4, V6)] family: Family,
) {
    let node = Node::with(network(way));
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    reach_one_another(&client, &web, family);
    give_gateway(&node, family);
    node.add_pod("third");
    reach_by_service(&node, &client, &web, family);
    reach_one_another(&client, &web, family);
}

/// An ADD that is refused takes the gateway away again that it gave the bridge.
#[rstest]
fn a_gateway_that_is_taken_back_leaves_pods_to_the_bridge(#[values(V4, V6)] family: Family) {
    let node = Node::with(network("alone"));
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    let mut open = Protocol::BOTH.map(|protocol| {
        client.dial(web.at(family, PORT)).patience(IMPATIENCE).open(protocol).unwrap()
    });
    let mut goes_on = || {
        for talk in &mut open {
            talk.ask_times(5).expect("the pod answers");
        }
    };
    goes_on();
    let with_gateway = too_many_cidrs(&Network::netplug());
    let error = node.try_add_pod("late", &with_gateway).unwrap_err();
    assert!(error.msg.contains("1024"), "{error}");
    goes_on();
    reach_one_another(&client, &web, family);
}

/// No ADD comes after it that would look again.
#[rstest]
fn a_gateway_that_comes_later_serves_the_pods_that_are_there(
    #[values("alone", "chained")] way: &str,
    #[values(V4, V6)] family: Family,
) {
    let node = Node::with(network(way));
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    reach_one_another(&client, &web, family);
    give_gateway(&node, family);
    reach_by_service(&node, &client, &web, family);
}

/// Where routes of links that do not run yet are ignored, the bridge has its addresses all the same.
#[test]
fn a_bridge_that_does_not_run_yet_has_its_gateway() {
    let node = Node::new();
    node.namespace().set_sysctl("net/ipv4/conf/all/ignore_routes_with_linkdown", "1");
    node.namespace().set_sysctl("net/ipv4/conf/default/ignore_routes_with_linkdown", "1");
    node.namespace().set_sysctl("net/ipv6/conf/all/ignore_routes_with_linkdown", "1");
    // Its ports are silent for seconds.
    node.namespace().run("ip link add cbr0 type bridge stp_state 1 forward_delay 200");
    assert_eq!(warnings_of_an_add(&node, "web", "isGateway"), Vec::<String>::new());
}

/// What pods say to one another is cached for no uplink, whatever the host makes of it.
#[rstest]
fn a_gateway_that_goes_draws_no_flow_to_the_uplink(#[values(V4, V6)] family: Family) {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    let (_, prefix) = pod_cidr(family).split_once('/').unwrap();
    node.namespace().run(&format!("ip address del {}/{prefix} dev cbr0", GATEWAY.ip(family)));
    let before = Counters::of(&node).get(Counter::Learned);
    let mut talk = client.dial(web.at(family, PORT)).patience(IMPATIENCE).udp().unwrap();
    for _ in 0..3 {
        talk.ask("anyone?").unwrap_err();
    }
    assert_eq!(Counters::of(&node).get(Counter::Learned), before);
}
