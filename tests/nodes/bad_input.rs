//! What a runtime or an operator gets wrong: namespaces that are none, names, routes, a reader that went away.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use netplug_tests::counters::endpoints;
use netplug_tests::ledger::Inventory;
use netplug_tests::namespace::Namespace;
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::runtime::{Attachment, PluginError, Verb, config};
use rstest::rstest;
use serde_json::{Value, json};

fn attachment(name: &str, interface: &str) -> Attachment {
    Attachment {
        container: format!("{name}-0001"),
        netns: Namespace::pod_path(name),
        interface: interface.into(),
        args: String::new(),
    }
}

/// The command of a call to netplug as the loopback plugin.
fn loopback(node: &Node, verb: Verb, of: &Attachment) -> Command {
    let netplug = node.runtime().command(verb, "netplug", of);
    let mut command = Command::new(Path::new(netplug.get_program()).with_file_name("loopback"));
    command.env_clear();
    command.envs(netplug.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command
}

/// `previous`: the `prevResult` of its configuration, if it has one.
fn call_loopback(node: &Node, verb: Verb, of: &Attachment, previous: Option<Value>) -> Output {
    let mut config = json!({"cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback"});
    if let Some(previous) = previous {
        config["prevResult"] = previous;
    }
    node.namespace().output(loopback(node, verb, of), config.to_string().as_bytes())
}

/// What is left where a namespace was: the file that it was mounted on, a link to nowhere, a file in place of its folder.
#[rstest]
fn a_namespace_that_is_none_is_gone_for_del_and_named_by_add(
    #[values("file", "link", "folder")] left: &str,
) {
    let node = Node::new();
    let web = node.add_pod("web");
    let mut of = web.attachment().clone();
    let path = of.netns.display().to_string();
    node.namespace().run(&format!("umount {path}"));
    node.namespace().run(&format!("ip link del {}", web.host_end()));
    match left {
        "link" => {
            node.namespace().run(&format!("rm {path}"));
            node.namespace().run(&format!("ln -s /run/netns/nowhere {path}"));
        }
        "folder" => of.netns = of.netns.join("web"),
        _ => {}
    }
    let result = web.result();
    let checked = node.runtime().check(node.namespace(), node.network(), &of, result).unwrap_err();
    assert!(checked.msg.contains(&path), "{checked}");
    for result in [Some(result), None] {
        node.runtime().del(node.namespace(), node.network(), &of, result).unwrap();
    }
    let deleted = call_loopback(&node, Verb::Del, &of, None);
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stdout));
    node.assert_clean();
    of.container = "other-0001".into();
    let error = node.runtime().add(node.namespace(), node.network(), &of).unwrap_err();
    assert!(error.msg.contains(&path), "{error}");
    assert!(error.msg.contains("is gone"), "{error}");
    node.finish();
}

/// In `%d` the kernel puts a number, so that no DEL would find the interface.
#[rstest]
fn a_name_that_no_interface_keeps_is_refused(
    #[values("a%d", "a%", ".", "..", "a/b", "a b", "a:b", "0123456789abcdef")] name: &str,
) {
    let node = Node::new();
    let network = node.network().clone().with("bridge", name);
    let error = node.try_add_pod("web", &network).unwrap_err();
    assert!(error.msg.starts_with("bridge: ") && error.msg.contains(name), "{error}");
    node.namespace().pod("other");
    let of = attachment("other", name);
    let error = node.runtime().add(node.namespace(), node.network(), &of).unwrap_err();
    assert!(error.msg.starts_with("CNI_IFNAME: ") && error.msg.contains(name), "{error}");
    node.finish();
}

/// The kernel takes none, nor do the reference plugins.
#[test]
fn a_route_with_host_bits_is_refused() {
    let node = Node::new();
    for (to, network) in [("10.9.0.5/16", "10.9.0.0/16"), ("fd09::5/64", "fd09::/64")] {
        let mut ipam = node.network().plugins[0]["ipam"].clone();
        ipam["routes"] = json!([{"dst": to}]);
        let asks = node.network().clone().with("ipam", ipam);
        let error = node.try_add_pod(&format!("web-{}", &to[..2]), &asks).unwrap_err();
        let names = |text: &str| error.msg.contains(text);
        assert!(names("ipam.routes") && names(to) && names(network), "{error}");
    }
    node.finish();
}

/// What the runtime never heard of, it may never take down.
#[rstest]
#[case::alone(Network::netplug(), "/dev/full")]
#[case::chained(Network::bridge().then_netplug(), "/dev/full")]
#[case::gone(Network::netplug(), "a pipe")]
fn an_add_that_cannot_tell_its_result_is_undone(#[case] network: Network, #[case] stdout: &str) {
    let node = Node::with(network);
    let namespace = node.namespace().pod("web");
    namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
    let of = attachment("web", "eth0");
    let (own, before) = node.network().plugins.split_last().unwrap();
    let first = Network { plugins: before.to_vec(), ..node.network().clone() };
    let previous = node.runtime().add(node.namespace(), &first, &of).unwrap();
    let config = config(node.network(), own, (!before.is_empty()).then_some(&previous));
    let mut command = node.runtime().command(Verb::Add, "netplug", &of);
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(match stdout {
        "a pipe" => {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            Stdio::from(writer)
        }
        path => Stdio::from(std::fs::File::options().write(true).open(path).unwrap()),
    });
    let output = node.namespace().enter(|| {
        let mut child = command.spawn().unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), &config).unwrap();
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the result to stdout"), "{said}");
    assert!(!said.contains("panic"), "{said}");
    assert!(endpoints(&node).is_empty());
    if before.is_empty() {
        node.finish();
    }
}

/// What is only a warning fails nothing, be nobody there to be warned.
#[test]
fn an_add_whose_warning_cannot_be_written_goes_on() {
    let node = Node::with(Network::netplug().with("bridgee", "cbr0"));
    node.namespace().pod("web");
    let of = attachment("web", "eth0");
    let config = config(node.network(), &node.network().plugins[0], None);
    let mut command = node.runtime().command(Verb::Add, "netplug", &of);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let output = node.namespace().enter(|| {
        let mut child = command.spawn().unwrap();
        serde_json::to_writer(child.stdin.take().unwrap(), &config).unwrap();
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let result: Value = serde_json::from_str(&said).unwrap();
    node.runtime().check(node.namespace(), node.network(), &of, &result).unwrap();
}

/// As the reference plugin takes it: none came before.
#[test]
fn loopback_without_a_result_before_it_makes_its_own() {
    let node = Node::new();
    let namespace = node.namespace().pod("web");
    let of = attachment("web", "lo");
    let ask = |previous| {
        let output = call_loopback(&node, Verb::Add, &of, previous);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let own = ask(None);
    assert_eq!(own["interfaces"][0]["name"], "lo");
    assert_eq!(ask(Some(Value::Null)), own);
    let previous = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}]});
    assert_eq!(ask(Some(previous.clone())), previous);
    assert!(namespace.run("ip -brief link show lo").contains("UP"));
}

/// By a link of that name, or by whose it is.
#[rstest]
fn the_nodes_own_namespace_is_no_pods(
    #[values("/proc/self/ns/net", "/run/netns/node")] path: &str,
) {
    let node = Node::new();
    let machine = node.namespace();
    machine.run("mkdir -p /run/netns");
    machine.run("touch /run/netns/node");
    machine.run("mount --bind /proc/self/ns/net /run/netns/node");
    let refuses = |error: &PluginError| {
        let says = format!("{path} is the node's own namespace");
        assert!(error.code == 4 && error.msg.contains(&says), "{error}");
    };
    let web = node.add_pod_chained("web", "bridge");
    let own = Attachment { netns: path.into(), ..web.attachment().clone() };
    let chained = Network { plugins: web.network().plugins[1..].to_vec(), ..web.network().clone() };
    let [by_add, by_check] = [Verb::Add, Verb::Check].map(|verb| {
        let config = config(&chained, &chained.plugins[0], Some(web.result()));
        node.runtime().call(machine, verb, "netplug", &own, &config).unwrap_err()
    });
    refuses(&by_add);
    refuses(&by_check);
    node.del_pod(web);
    let before = Inventory::of(machine);
    let alone = Attachment { interface: "net9".into(), ..own };
    refuses(&node.runtime().add(machine, node.network(), &alone).unwrap_err());
    node.runtime().del(machine, node.network(), &alone, None).unwrap();
    machine.run("ip link set lo up");
    let of = Attachment { interface: "lo".into(), ..alone };
    for verb in [Verb::Add, Verb::Check] {
        let output = call_loopback(&node, verb, &of, None);
        let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert!(!output.status.success() && error["code"] == 4, "{verb:?}: {error}");
    }
    let deleted = call_loopback(&node, Verb::Del, &of, None);
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stdout));
    assert!(machine.run("ip -brief link show lo").contains("UP"));
    before.assert_same(&Inventory::of(machine));
}

/// An interface's alias, which has them for people to read, holds less than `IFALIASZ`, 256 octets.
#[test]
fn names_may_be_longer_than_an_alias_holds() {
    let node = Node::with(Network::netplug().named(&"n".repeat(250)));
    let refused = crate::faults::too_many_cidrs(node.network());
    node.try_add_pod("refused", &refused).unwrap_err();
    node.assert_clean();
    let web = node.add_pod(&"w".repeat(60));
    node.check(&web).unwrap();
    node.del_pod(web);
    node.finish();
}
