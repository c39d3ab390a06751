//! How long ADD and DEL of a pod take, beside the chain of reference plugins that a kubenet node ran.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, io::Write};

use serde_json::{Value, json};

use super::engine::Outcome;
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
    let plugin = &network.plugins[0];
    let (took, result) =
        call(node, Verb::Add, plugin_name(plugin), &of, &config(network, plugin, None))?;
    add += took;
    let with_result = config(network, plugin, Some(&result));
    del += call(node, Verb::Del, plugin_name(plugin), &of, &with_result)?.0;
    if !network.is_ours() {
        del += call(node, Verb::Del, "loopback", &lo, &lo_config)?.0;
    }
    node.namespace().run(&format!("umount {}", of.netns.display()));
    Ok((add, del))
}

/// ADD and DEL, `times` times each, in turn by netplug and by loopback + bridge + host-local.
pub fn rows(times: usize) -> io::Result<[Row; 2]> {
    let networks =
        [("loopback + bridge + host-local", Network::bridge()), ("netplug", Network::netplug())];
    let nodes = networks.each_ref().map(|(_, network)| Node::with(network.clone()));
    // One pod stays, so that neither has to make or remove what all pods share.
    let _pods = nodes.each_ref().map(|node| node.add_pod("resident"));
    let mut turns = [const { Vec::new() }; 4];
    for number in 0..times {
        for (index, (node, (_, network))) in nodes.iter().zip(&networks).enumerate() {
            let (add, del) = once(node, network, number)?;
            turns[index].push(add);
            turns[2 + index].push(del);
        }
    }
    let [add_theirs, add_ours, del_theirs, del_ours] = turns;
    let row = |work, theirs, ours| Row {
        work,
        lanes: vec![
            Outcome::of_times(networks[0].0, theirs),
            Outcome::of_times(networks[1].0, ours),
        ],
    };
    Ok([row("CNI ADD, ns", add_theirs, add_ours), row("CNI DEL, ns", del_theirs, del_ours)])
}
