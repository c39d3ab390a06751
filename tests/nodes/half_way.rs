//! Changes of the node's settings that end half way, killed or failing: what others have is as it was before, or as it was to be.

use std::net::SocketAddr;
use std::process::Command;

use netplug_tests::cast::Family::{self, V4, V6};
use netplug_tests::cast::{INTRANET, NON_MASQUERADE, OUTSIDE};
use netplug_tests::network::Network;
use netplug_tests::node::Node;
use netplug_tests::runtime::{Verb, config};
use netplug_tests::traffic::Protocol::Tcp;
use rstest::rstest;
use serde_json::Value;

use crate::faults::unplugged;
use crate::scene::PORT;

/// More calls of bpf(2) than any of these commands makes.
pub const MANY: usize = 1_000;

/// A command of netplug's whose calls of bpf(2) strace looks at, and one of which it has end as it is told.
pub fn traced(command: &Command, inject: Option<String>) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-e", "trace=bpf"]);
    if let Some(inject) = inject {
        traced.args(["-e", &format!("inject=bpf:{inject}")]);
    }
    traced.arg(command.get_program()).args(command.get_args());
    traced.env_clear().envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    traced
}

fn netplug(node: &Node, line: &str) -> Command {
    let mut command = node.runtime().cli();
    command.args(line.split_whitespace());
    command
}

/// Masquerade and what is exempt, as the programs have it.
fn in_force(node: &Node) -> (Value, Vec<String>) {
    let status = node.netplug_json("status");
    let mut exempt = crate::masquerade::texts(&status["non_masquerade_cidrs"]);
    exempt.sort();
    (status["masquerade"].clone(), exempt)
}

#[track_caller]
fn assert_off_or_exempting(node: &Node, call: usize) {
    let (masquerade, exempt) = in_force(node);
    let is_on = node.netplug_json("masquerade show")["masquerade"]["on"] == true;
    let is_exempt = NON_MASQUERADE.iter().all(|cidr| exempt.iter().any(|known| known == cidr));
    assert!(!is_on || is_exempt, "killed at call {call}: {masquerade}, but for {exempt:?}");
}

/// A connection that no mapping tells of is translated by its next packet where nothing says that it is exempt, and ends.
#[rstest]
fn an_add_that_is_killed_leaves_exempt_connections_alone(#[values(V4, V6)] ip: Family) {
    let off = Network::netplug().with("masquerade", false);
    let node = Node::with(off.clone());
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let to = SocketAddr::new(INTRANET.ip(ip), PORT);
    let mut talk = client.dial(to).open(Tcp).unwrap();
    talk.ask_times(20).unwrap();
    let (_pod, attachment) = unplugged(&node, "late", "");
    let add = |network: &Network, inject: Option<String>| {
        let config = config(network, &network.plugins[0], None).to_string();
        let add = node.runtime().command(Verb::Add, "netplug", &attachment);
        node.namespace().output(traced(&add, inject), config.as_bytes())
    };
    let del = || {
        node.runtime().del(node.namespace(), &off, &attachment, None).unwrap();
    };
    let said = add(&off, None);
    assert!(said.status.success());
    let calls = String::from_utf8_lossy(&said.stderr).matches("bpf(").count();
    del();
    let on = Network::netplug();
    // What counts for the node comes last.
    for call in calls.saturating_sub(40).max(1)..MANY {
        let through = add(&on, Some(format!("signal=KILL:when={call}"))).status.success();
        assert_off_or_exempting(&node, call);
        let answer = talk.ask_times(1).unwrap_or_else(|error| panic!("call {call}: {error}"));
        assert_eq!(answer.client_ip(), client.ip(ip), "call {call}");
        del();
        if through {
            return;
        }
        assert!(add(&off, None).status.success());
        del();
    }
    panic!("it never gets through");
}

const OFF: &str = "masquerade set --off --non-masquerade-cidr 198.51.100.0/24";
const ON: &str =
    "masquerade set --on --non-masquerade-cidr 10.0.0.0/8 --non-masquerade-cidr fd00::/8";

#[rstest]
fn an_operators_change_that_is_killed_leaves_exempt_connections_alone(
    #[values(V4, V6)] ip: Family,
) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    node.netplug(OFF);
    let to = SocketAddr::new(INTRANET.ip(ip), PORT);
    let mut talk = client.dial(to).open(Tcp).unwrap();
    talk.ask_times(20).unwrap();
    for call in 1..MANY {
        let set = traced(&netplug(&node, ON), Some(format!("signal=KILL:when={call}")));
        let through = node.namespace().output(set, b"").status.success();
        assert_off_or_exempting(&node, call);
        let answer = talk.ask_times(1).unwrap_or_else(|error| panic!("call {call}: {error}"));
        assert_eq!(answer.client_ip(), client.ip(ip), "call {call}");
        if through {
            return;
        }
        node.netplug(OFF);
    }
    panic!("it never gets through");
}

/// A map may be full, or the kernel out of memory.
#[rstest]
fn an_operators_change_that_fails_changes_nothing(
    #[values((OFF, ON), (ON, OFF))] (before, after): (&str, &str),
) {
    let node = Node::new();
    let _client = node.add_pod("client");
    node.netplug(before);
    let kept = || node.namespace().run("cat /run/netplug/state.json");
    let was = (in_force(&node), kept());
    for call in 1..MANY {
        let set = traced(&netplug(&node, after), Some(format!("error=ENOMEM:when={call}")));
        let output = node.namespace().output(set, b"");
        if output.status.success() {
            assert_ne!(in_force(&node), was.0, "call {call}");
            if !String::from_utf8_lossy(&output.stderr).contains("(INJECTED)") {
                return;
            }
            // It could do without.
            node.netplug(before);
        }
        assert_eq!((in_force(&node), kept()), was, "call {call}");
    }
    panic!("it never gets through");
}

/// Leaves no room in /run, where the state file is.
fn fill_run(node: &Node) {
    let used = node.namespace().run("df --output=used -k /run");
    let used = used.lines().nth(1).map(str::trim).expect("df prints a line of names first");
    node.namespace().run(&format!("mount -o remount,size={used}k /run"));
}

/// What counts and is not on file would be forgotten by the next who changes the settings.
#[rstest]
fn a_change_that_cannot_be_kept_does_not_count(#[values("an ADD", "an operator")] by: &str) {
    let node = Node::new();
    node.outside().listen(PORT);
    let client = node.add_pod("client");
    let kept = || node.namespace().run("cat /run/netplug/state.json");
    let before = (in_force(&node), kept());
    let mut talks = Family::BOTH.map(|ip| {
        let to = SocketAddr::new(OUTSIDE.ip(ip), PORT);
        client.dial(to).open(Tcp).unwrap()
    });
    fill_run(&node);
    let said = match by {
        "an ADD" => {
            let off = Network::netplug().with("masquerade", false).with("revisit", "5s");
            node.try_add_pod("late", &off).unwrap_err().to_string()
        }
        _ => {
            let output = node.try_netplug(OFF);
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
    };
    assert!(said.contains("state.json"), "{said}");
    assert_eq!((in_force(&node), kept()), before);
    for talk in &mut talks {
        talk.ask_times(5).unwrap();
    }
}
