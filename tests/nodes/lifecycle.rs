//! ADD, CHECK, DEL, VERSION and unload.

use std::process::Command;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{GATEWAY, OUTSIDE, SERVICE, pod_cidr};
use netplug_tests::counters::endpoints;
use netplug_tests::kernel::has_tcx;
use netplug_tests::leftovers;
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::rules::{self, Service};
use netplug_tests::runtime::{Verb, addresses, config};
use netplug_tests::traffic::Protocol::{self, Tcp};
use rstest::rstest;
use serde_json::json;

use crate::scene::PORT;
use crate::scene::Steering::{self, Direct, Learn};

#[test]
fn a_pod_gets_an_address_of_each_family_and_a_way_out() {
    let node = Node::new();
    let web = node.add_pod("web");
    for family in [V4, V6] {
        let cidr: ipnetwork::IpNetwork = pod_cidr(family).parse().unwrap();
        assert!(cidr.contains(web.ip(family)), "{} is not in {cidr}", web.ip(family));
        let flag = if family == V4 { "-4" } else { "-6" };
        let route = web.namespace().run(&format!("ip {flag} route show default"));
        assert!(route.contains(&GATEWAY.ip(family).to_string()), "{route}");
    }
    assert_eq!(web.result()["cniVersion"], "1.0.0");
    node.check(&web).unwrap();
    let own = endpoints(&node);
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].interface, web.host_end());
    assert_eq!(own[0].addresses.len(), addresses(web.result()).len());
}

#[rstest]
fn deleting_every_pod_leaves_nothing(
    #[values("auto", "tcx", "promoted", "bridge", "ptp")] way: &str,
) {
    let is_tcx = ["tcx", "promoted"].contains(&way);
    if is_tcx && !has_tcx() {
        return;
    }
    let attach = if way == "tcx" { "tcx" } else { "auto" };
    let node = Node::with(Network::netplug().with("attach", attach));
    let [web, client] = ["web", "client"].map(|name| match way {
        "bridge" | "ptp" => node.add_pod_chained(name, way),
        _ => node.add_pod(name),
    });
    let web = web.listening(PORT);
    if way == "promoted" {
        assert_eq!(node.netplug_json("promote")["promoted"], 2);
    }
    node.outside().listen(PORT);
    for ip in [V4, V6] {
        rules::serve(node.namespace(), &Service::both(80, &[web.at(ip, PORT)]));
        for to in [(SERVICE.ip(ip), 80), (OUTSIDE.ip(ip), PORT)] {
            for protocol in Protocol::BOTH {
                client.dial(to.into()).open(protocol).unwrap().ask_times(50).unwrap();
            }
        }
        node.outside().dial(web.at(ip, PORT)).open(Tcp).unwrap().ask_times(50).unwrap();
    }
    rules::clear(node.namespace());
    // What is looked for is there.
    let there = leftovers::of_pods(node.namespace());
    let mut wanted = vec!["PORTS:", "ENDPOINTS4:", "ENDPOINTS6:", "FLOWS4:", "FLOWS6:"];
    wanted.extend(["NAT_OUT4:", "NAT_OUT6:", "NAT_IN4:", "NAT_IN6:"]);
    wanted.extend(is_tcx.then_some("the pin link-"));
    wanted.extend((way != "ptp").then_some("the neighbour"));
    wanted.extend((way != "ptp").then_some("the FDB entry"));
    for kind in wanted {
        assert!(there.iter().any(|line| line.contains(kind)), "{kind} is not in {there:#?}");
    }
    node.del_pod(client);
    node.del_pod(web);
    assert!(endpoints(&node).is_empty());
    // Void ones too.
    let status = node.netplug_json("status");
    assert_eq!((&status["flows"], &status["mappings"]), (&json!(0), &json!(0)));
    node.finish();
}

#[test]
fn unloading_under_pods_takes_only_the_programs() {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let client = node.add_pod("client");
    node.netplug("unload --force");
    client.dial(web.at(V4, PORT)).ask(Tcp, "still a bridge").unwrap();
}

#[test]
fn adding_a_container_twice_is_refused_and_the_first_stays_whole() {
    let node = Node::new();
    let web = node.add_pod("web").listening(PORT);
    let again = node.runtime().add(node.namespace(), node.network(), web.attachment());
    let error = again.unwrap_err();
    assert_ne!(error.code, 0, "{error}");
    assert!(!error.msg.is_empty(), "{error}");
    node.check(&web).unwrap();
    let client = node.add_pod("client");
    client.dial(web.at(V4, PORT)).ask(Tcp, "whole?").unwrap();
    assert_eq!(endpoints(&node).len(), 2);
    node.del_pod(client);
    node.del_pod(web);
    node.finish();
}

#[test]
fn deleting_may_come_twice_and_without_namespace_or_result() {
    let node = Node::new();
    let web = node.add_pod("web");
    let mut lost = web.attachment().clone();
    node.detach(&web).unwrap();
    lost.netns = "".into();
    node.runtime().del(node.namespace(), node.network(), &lost, None).unwrap();
    lost.netns = "/run/netns/never-was".into();
    node.runtime().del(node.namespace(), node.network(), &lost, None).unwrap();
    node.assert_clean();
}

#[test]
fn deleting_needs_neither_namespace_nor_result() {
    let node = Node::new();
    let web = node.add_pod("web");
    let mut lost = web.attachment().clone();
    lost.netns = "".into();
    node.runtime().del(node.namespace(), node.network(), &lost, None).unwrap();
    assert!(endpoints(&node).is_empty());
    drop(web);
    node.assert_clean();
}

#[test]
fn a_pod_that_could_not_be_taken_away_keeps_its_addresses() {
    let node = Node::new();
    let web = node.add_pod("web");
    let leases =
        || node.namespace().run("find /var/lib/cni/networks -name 10.244.* -or -name fd00*");
    let held = leases();
    let plain = node.runtime().command(Verb::Del, "netplug", web.attachment());
    let mut powerless = Command::new("setpriv");
    powerless.args(["--inh-caps=-net_admin", "--bounding-set=-net_admin"]).arg(plain.get_program());
    powerless.env_clear().envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let config = config(node.network(), &node.network().plugins[0], None).to_string();
    let output = node.namespace().output(powerless, config.as_bytes());
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(leases(), held);
    node.del_pod(web);
    node.assert_clean();
}

#[test]
fn a_failed_add_leaves_nothing() {
    let node = Node::new();
    let namespace = node.namespace().pod("web");
    // Its name is taken already: the last thing that ADD finds out.
    namespace.run("ip link add eth0 type bridge");
    drop(namespace);
    let mut attachment = node.add_pod("other").attachment().clone();
    attachment.container = "web-0001".into();
    attachment.netns = Namespace::pod_path("web");
    let before = endpoints(&node).len();
    let error = node.runtime().add(node.namespace(), node.network(), &attachment).unwrap_err();
    assert!(!error.msg.is_empty(), "{error}");
    assert_eq!(endpoints(&node).len(), before);
    let leases = node.namespace().run("find /var/lib/cni/networks -name 10.244.*");
    assert_eq!(leases.lines().count(), 1, "{leases}");
}

/// For want of memory, whatever it asks of the kernel's BPF just then: the next begins anew, and is told no wrong reason.
#[test]
fn a_first_load_that_fails_leaves_nothing() {
    let node = Node::new();
    let mut said_of_maps = 0;
    for call in (20..136).step_by(4) {
        let cli = node.runtime().cli();
        let mut failing = Command::new("strace");
        failing.args(["-f", "-o", "/dev/null", "-e", "trace=bpf", "-e"]);
        failing.arg(format!("inject=bpf:error=ENOMEM:when={call}"));
        failing.arg(cli.get_program()).arg("load").env_clear();
        failing.envs(cli.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = node.namespace().output(failing, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            node.netplug("unload");
            continue;
        }
        assert!(!said.contains("CAP_BPF") && !said.contains("panic"), "call {call}: {said}");
        said_of_maps += usize::from(said.contains("cannot make the map "));
        let pins = node.namespace().run("find /sys/fs/bpf/netplug -type f");
        assert_eq!(pins, "", "call {call}: {said}");
    }
    assert!(said_of_maps > 0, "no call was for a map");
    let web = node.add_pod("web");
    node.check(&web).unwrap();
}

#[test]
fn check_finds_a_pod_without_its_interface() {
    let node = Node::new();
    let web = node.add_pod("web");
    node.check(&web).unwrap();
    web.namespace().run("ip link del eth0");
    node.check(&web).unwrap_err();
}

#[test]
fn versions_up_to_the_current_are_spoken() {
    let node = Node::new();
    let version = node.runtime().version(node.namespace(), "netplug").unwrap();
    let supported: Vec<_> = version["supportedVersions"].as_array().unwrap().iter().collect();
    for wanted in ["0.3.1", "0.4.0", "1.0.0"] {
        assert!(supported.iter().any(|version| *version == wanted), "{wanted} is not in {version}");
    }
}

#[test]
fn a_wrong_setting_is_named_and_nothing_is_made() {
    let node = Node::new();
    for (key, value) in [("steering", "sideways"), ("revisit", "one day"), ("bridge", "a/b")] {
        let error = node
            .try_add_pod(&format!("web-{key}"), &node.network().clone().with(key, value))
            .unwrap_err();
        assert!(error.msg.contains(key) || error.details.contains(key), "{error}");
    }
    node.assert_clean();
}

/// Who changes the settings reads them first: none may overwrite what another wrote in between.
#[test]
fn settings_that_are_changed_at_once_are_all_kept() {
    const TIMES: u32 = 2_000;
    let node = Node::new();
    let _web = node.add_pod("web");
    let open = || netplug::datapath::Datapath::open().unwrap().unwrap();
    let epoch = || node.namespace().enter(|| open().config().unwrap().epoch);
    let before = epoch();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let node = &node;
            scope.spawn(move || {
                node.namespace().enter(|| {
                    let datapath = open();
                    (0..TIMES).for_each(|_| datapath.bump_epoch().unwrap());
                });
            });
        }
    });
    assert_eq!(epoch(), before + 2 * TIMES);
}

#[test]
fn pods_may_come_all_at_once() {
    let node = Node::new();
    let pods: Vec<_> = std::thread::scope(|scope| {
        let adding: Vec<_> = (0..8)
            .map(|number| {
                let node = &node;
                scope.spawn(move || node.add_pod(&format!("web-{number}")))
            })
            .collect();
        adding.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let distinct: std::collections::HashSet<_> = pods.iter().map(|pod| pod.ip(V4)).collect();
    assert_eq!(distinct.len(), pods.len());
    assert_eq!(endpoints(&node).len(), pods.len());
    std::thread::scope(|scope| {
        for pod in pods {
            scope.spawn(|| node.del_pod(pod));
        }
    });
    node.finish();
}

/// With `direct`, the cache holds the tuple of a connection that the host knows, answered or not.
#[rstest]
fn pods_whose_service_refused_leave_nothing(
    #[values(V4, V6)] ip: Family,
    #[values(Learn, Direct)] steering: Steering,
) {
    let node = Node::with(steering.network());
    let [web, client] = ["web", "client"].map(|name| node.add_pod(name));
    rules::serve(node.namespace(), &Service::both(80, &[web.at(ip, PORT)]));
    client.dial((SERVICE.ip(ip), 80).into()).tcp().unwrap_err();
    rules::clear(node.namespace());
    node.del_pod(client);
    node.del_pod(web);
    node.assert_no_leftovers();
}
