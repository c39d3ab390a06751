//! How long ADD and DEL of a pod take, beside the chain of reference plugins that a kubenet node ran.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, io::Write};

use serde_json::{Value, json};

use super::engine::Outcome;
use super::roads::with_host_ports;
use super::rows::Row;
use crate::namespace::Namespace;
use crate::network::Network;
use crate::node::Node;
use crate::runtime::{Attachment, Verb, config, plugin_name};

/// One call, timed from before the plugin's process begins to after it has ended.
fn call(
    node: &Node,
    verb: Verb,
    plugin: &str,
    of: &Attachment,
    config: &Value,
) -> io::Result<(Duration, Value)> {
    let mut command: Command = node.runtime().command(verb, plugin, of);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    node.namespace().enter(|| {
        let start = Instant::now();
        let mut child = command.spawn()?;
        child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(config.to_string().as_bytes()))
            .transpose()?;
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(io::Error::other(format!("{plugin}: {printed}")));
        }
        Ok((took, serde_json::from_str(&printed).unwrap_or(Value::Null)))
    })
}

/// ADD and DEL of one pod; how long each took, all plugins together.
fn once(node: &Node, network: &Network, number: usize) -> io::Result<(Duration, Duration)> {
    let name = format!("timed-{number}");
    let _namespace = node.namespace().pod(&name);
    let of = Attachment {
        container: name.clone(),
        netns: Namespace::pod_path(&name),
        interface: "eth0".into(),
        args: String::new(),
    };
    // Runtimes call `loopback` for every pod, whatever the list: netplug under that name, or the reference one.
    let (mut add, mut del) = (Duration::ZERO, Duration::ZERO);
    let lo = Attachment { interface: "lo".into(), ..of.clone() };
    let lo_config = json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"});
    if !network.is_ours() {
        add += call(node, Verb::Add, "loopback", &lo, &lo_config)?.0;
    }
    let mut result = None;
    for plugin in &network.plugins {
        let config = config(network, plugin, result.as_ref());
        let (took, next) = call(node, Verb::Add, plugin_name(plugin), &of, &config)?;
        add += took;
        result = Some(next);
    }
    for plugin in network.plugins.iter().rev() {
        let config = config(network, plugin, result.as_ref());
        del += call(node, Verb::Del, plugin_name(plugin), &of, &config)?.0;
    }
    if !network.is_ours() {
        del += call(node, Verb::Del, "loopback", &lo, &lo_config)?.0;
    }
    node.namespace().run(&format!("umount {}", of.netns.display()));
    Ok((add, del))
}

/// Two rows: ADD and DEL of the same pods.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What is done, and what the figures count.
    pub works: [&'static str; 2],
    theirs: &'static str,
    has_host_ports: bool,
}

/// Without a HostPort, and with one.
pub const PLANS: [Plan; 2] = [
    Plan {
        works: ["CNI ADD, ns", "CNI DEL, ns"],
        theirs: "loopback + bridge + host-local",
        has_host_ports: false,
    },
    Plan {
        works: ["CNI ADD with a HostPort, ns", "CNI DEL with a HostPort, ns"],
        theirs: "loopback + bridge + host-local + portmap",
        has_host_ports: true,
    },
];

impl Plan {
    /// ADD and DEL, `times` times each, in turn by netplug and by the reference plugins.
    pub fn rows(self, times: usize) -> io::Result<[Row; 2]> {
        let mut networks = [Network::bridge(), Network::netplug()];
        if self.has_host_ports {
            networks[0].plugins.push(json!({"type": "portmap", "snat": true}));
            networks = networks.map(with_host_ports);
        }
        let residents = [Network::bridge(), Network::netplug()];
        let nodes = residents.map(Node::with);
        // One pod stays, so that neither has to make or remove what all pods share.
        let _pods = nodes.each_ref().map(|node| node.add_pod("resident"));
        let mut turns = [const { Vec::new() }; 4];
        for number in 0..times {
            for (index, (node, network)) in nodes.iter().zip(&networks).enumerate() {
                let (add, del) = once(node, network, number)?;
                turns[index].push(add);
                turns[2 + index].push(del);
            }
        }
        let [add_theirs, add_ours, del_theirs, del_ours] = turns;
        let row = |work, theirs, ours| Row {
            work,
            lanes: vec![Outcome::of_times(self.theirs, theirs), Outcome::of_times("netplug", ours)],
        };
        let [add, del] = self.works;
        Ok([row(add, add_theirs, add_ours), row(del, del_theirs, del_ours)])
    }
}
