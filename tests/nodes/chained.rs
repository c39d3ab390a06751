//! netplug after Debian's `bridge` and `ptp`.

use std::net::SocketAddr;
use std::process::Command;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NODE_1, OUTSIDE};
use netplug_tests::counters::endpoints;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::rules::{self, Service};
use netplug_tests::runtime::{Verb, config};
use netplug_tests::traffic::Protocol::{self, Tcp, Udp};
use rstest::rstest;

use crate::faults::unplugged;
use crate::scene::PORT;

#[rstest]
fn chained_pods_have_every_way_that_others_have(
    #[values("bridge", "ptp")] after: &str,
    #[values(V4, V6)] ip: Family,
    #[values(Tcp, Udp)] protocol: Protocol,
) {
    let node = Node::new();
    let alone = node.add_pod("alone").listening(PORT);
    let chained = node.add_pod_chained("chained", after).listening(PORT);
    let other = node.add_pod_chained("other", after).listening(PORT);
    node.outside().listen(PORT);
    let mut services = Service::both(80, &[chained.at(ip, PORT)]);
    services.extend(Service::both(81, &[alone.at(ip, PORT)]));
    let [by, to_alone] = [services[0].at, services[2].at];
    rules::serve(node.namespace(), &services);
    let outside = SocketAddr::new(OUTSIDE.ip(ip), PORT);
    let intranet = SocketAddr::new(INTRANET.ip(ip), PORT);
    for (from, to, server, seen) in [
        (&alone, chained.at(ip, PORT), "chained", Some(alone.ip(ip))),
        (&chained, alone.at(ip, PORT), "alone", Some(chained.ip(ip))),
        (&chained, other.at(ip, PORT), "other", Some(chained.ip(ip))),
        (&alone, by, "chained", Some(alone.ip(ip))),
        (&other, by, "chained", Some(other.ip(ip))),
        (&chained, to_alone, "alone", Some(chained.ip(ip))),
        (&chained, by, "chained", None),
        (&chained, outside, OUTSIDE.name, Some(NODE_1.ip(ip))),
        (&chained, intranet, INTRANET.name, Some(chained.ip(ip))),
    ] {
        let answer = from.dial(to).open(protocol).and_then(|mut talk| talk.ask_times(30));
        let answer = answer.unwrap_or_else(|error| panic!("{} → {to}: {error}", from.name()));
        assert_eq!(answer.server, server, "{} → {to}", from.name());
        if let Some(seen) = seen {
            assert_eq!(answer.client_ip(), seen, "{} → {to}", from.name());
        }
    }
    let answer =
        node.outside().dial(chained.at(ip, PORT)).open(protocol).unwrap().ask_times(30).unwrap();
    assert_eq!(answer.client_ip(), OUTSIDE.ip(ip));
}

#[rstest]
fn the_result_of_the_chain_loses_nothing(#[values("bridge", "ptp")] after: &str) {
    let node = Node::new();
    let chained = node.add_pod_chained("chained", after);
    assert_eq!(chained.result()["ips"].as_array().unwrap().len(), 2);
    assert!(chained.result()["routes"].as_array().is_some_and(|routes| routes.len() >= 2));
    node.check(&chained).unwrap();
    let host_end = chained.host_end();
    assert!(endpoints(&node).iter().any(|endpoint| endpoint.interface == host_end));
    node.del_pod(chained);
    assert!(endpoints(&node).is_empty());
    node.finish();
}

#[test]
fn adding_a_chained_container_twice_is_refused_and_the_first_stays_whole() {
    let node = Node::new();
    let network = Network::bridge().then_netplug();
    let web = node.add_pod_to("web", &network).listening(PORT);
    let config = config(&network, &network.plugins[1], Some(web.result()));
    let add = |of| node.runtime().call(node.namespace(), Verb::Add, "netplug", of, &config);
    let error = add(web.attachment()).unwrap_err();
    assert_eq!(error.code, 101, "{error}");
    node.check(&web).unwrap();
    node.outside().dial(web.at(V4, PORT)).ask(Tcp, "whole?").unwrap();
    node.del_pod(web);
    node.assert_clean();
}

/// At whatever it asks of the kernel's BPF: the next ADD begins anew, or says that the pod is there, and then it is whole.
#[test]
fn an_add_that_was_killed_is_made_whole_by_the_next() {
    let node = Node::with(Network::bridge().then_netplug());
    node.netplug("load");
    let resident = node.add_pod("resident");
    let (_pod, attachment) = unplugged(&node, "web", "");
    let first = Network { plugins: node.network().plugins[..1].to_vec(), ..node.network().clone() };
    let result = node.runtime().add(node.namespace(), &first, &attachment).unwrap();
    let own = &node.network().plugins[1];
    let config = config(node.network(), own, Some(&result)).to_string();
    let add = || node.runtime().command(Verb::Add, "netplug", &attachment);
    let attached = || node.netplug_json("endpoints")["endpoints"].as_array().map_or(0, Vec::len);
    // Every third: each is an ADD or two.
    for call in (1..).step_by(3) {
        let mut killed = Command::new("strace");
        killed.args(["-f", "-o", "/dev/null", "-e", "trace=bpf", "-e"]);
        killed.arg(format!("inject=bpf:signal=KILL:when={call}")).arg(add().get_program());
        killed.env_clear().envs(add().get_envs().filter_map(|(key, value)| Some((key, value?))));
        let is_through = node.namespace().output(killed, config.as_bytes()).status.success();
        let again = node.namespace().output(add(), config.as_bytes());
        let said = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(
            again.status.success() || said.contains("already"),
            "killed at call {call}: {said}"
        );
        assert_eq!(attached(), 2);
        let shown = node.netplug("endpoints");
        assert!(!shown.contains("none"), "killed at call {call}: {said}{shown}");
        let mut del = node.runtime().command(Verb::Del, "netplug", &attachment);
        del.env("CNI_COMMAND", "DEL");
        assert!(node.namespace().output(del, config.as_bytes()).status.success());
        if is_through {
            assert!(call > 20, "an ADD of {call} calls");
            break;
        }
    }
    node.del_pod(resident);
}

/// What the other plugin made stays, and netplug's DEL has switched it off.
#[rstest]
fn netplug_may_leave_a_chain_and_come_back(
    #[values("bridge", "ptp")] way: &str,
    #[values(V4, V6)] ip: Family,
) {
    let network = match way {
        "bridge" => Network::bridge(),
        _ => Network::ptp(),
    };
    let node = Node::with(network.then_netplug());
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    let own = node.network().plugins.last().unwrap();
    let text = config(node.network(), own, Some(client.result())).to_string();
    for verb in [Verb::Del, Verb::Add] {
        let command = node.runtime().command(verb, "netplug", client.attachment());
        let output = node.namespace().output(command, text.as_bytes());
        assert!(output.status.success(), "{output:?}");
    }
    client.dial(web.at(ip, PORT)).ask(Udp, "back?").unwrap();
}
