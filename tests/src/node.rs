//! A node: a machine of namespaces with an uplink to an outside host, a runtime, and pods.
//!
//! Everything it is made of hangs on file descriptors of this process, so it is gone when the process is. With
//! `NETPLUG_KEEP=1` a sleeping process inside keeps it, and the lines to look into it are printed.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::Value;

use crate::ledger::Inventory;
use crate::leftovers;
use crate::namespace::Namespace;
use crate::network::Network;
use crate::outside::Outside;
use crate::pod::Pod;
use crate::runtime::{Attachment, PluginError, Runtime};
use crate::watcher::Watcher;

/// A node of one's own.
#[derive(Debug)]
pub struct Node {
    namespace: Namespace,
    outside: Outside,
    runtime: Runtime,
    network: Network,
    before: Inventory,
    containers: AtomicU32,
    /// Whether a plugin that never cleans up after itself has been here, too.
    mixed: AtomicBool,
}

impl Node {
    /// A node whose pods get their network from netplug alone, with `bridge-nf-call-iptables=0`.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Network::netplug())
    }

    /// A node whose pods get their network as `network` says.
    #[must_use]
    pub fn with(network: Network) -> Self {
        let namespace = Namespace::machine("node");
        let outside = Outside::joined_to(&namespace);
        let runtime = Runtime::new(&namespace);
        let before = Inventory::of(&namespace);
        let node = Self {
            namespace,
            outside,
            runtime,
            network,
            before,
            containers: AtomicU32::new(1),
            mixed: AtomicBool::new(false),
        };
        node.bridge_netfilter(false);
        node
    }

    /// Whether bridged packets walk the host's iptables: `bridge-nf-call-iptables` and its twin for IPv6. `false`
    /// where the kernel has no br_netfilter to switch on.
    pub fn bridge_netfilter(&self, on: bool) -> bool {
        let sysctls = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];
        let there = sysctls.iter().all(|sysctl| self.namespace.sysctl(sysctl).is_some());
        if there {
            sysctls
                .iter()
                .for_each(|sysctl| self.namespace.set_sysctl(sysctl, if on { "1" } else { "0" }));
        }
        there || !on
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The host at the other end of its uplink.
    #[must_use]
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Its runtime.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// How its pods get their network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Adds a pod.
    ///
    /// # Panics
    /// When a plugin fails.
    #[track_caller]
    pub fn add_pod(&self, name: &str) -> Pod {
        self.add_pod_to(name, &self.network)
    }

    /// Adds a pod to which Debian's `bridge` or `ptp` gave the interface before netplug came to it.
    ///
    /// # Panics
    /// When a plugin fails, or `after` is neither of the two.
    #[track_caller]
    pub fn add_pod_chained(&self, name: &str, after: &str) -> Pod {
        let first = match after {
            "bridge" => Network::bridge(),
            "ptp" => Network::ptp(),
            other => panic!("no list here begins with {other}"),
        };
        let mut network = first.then_netplug();
        if let Some(own) = self.network.plugins.iter().find(|plugin| plugin["type"] == "netplug") {
            for key in ["steering", "revisit", "masquerade"] {
                network = network.with(key, own[key].clone());
            }
        }
        self.add_pod_to(name, &network)
    }

    /// Adds a pod to a network of its own.
    ///
    /// # Panics
    /// When a plugin fails.
    #[track_caller]
    pub fn add_pod_to(&self, name: &str, network: &Network) -> Pod {
        match self.try_add_pod(name, network) {
            Ok(pod) => pod,
            Err(error) => panic!("ADD of {name} failed: {error}"),
        }
    }

    /// Adds a pod; a plugin's failure is the caller's.
    pub fn try_add_pod(&self, name: &str, network: &Network) -> Result<Pod, PluginError> {
        let number = self.containers.fetch_add(1, Ordering::Relaxed);
        let namespace = self.namespace.pod(name);
        if network
            .plugins
            .iter()
            .any(|plugin| plugin["type"] == "bridge" || plugin["type"] == "ptp")
        {
            self.mixed.store(true, Ordering::Relaxed);
            // The reference plugins wait a second or two for it; kubenet turned it off as we do here.
            namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
            namespace.set_sysctl("net/ipv6/conf/all/accept_dad", "0");
            self.namespace.set_sysctl("net/ipv6/conf/default/accept_dad", "0");
        }
        let attachment = Attachment {
            container: format!("{name}-{number:04}"),
            netns: Namespace::pod_path(name),
            interface: "eth0".into(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"),
        };
        let result = self.runtime.add(&self.namespace, network, &attachment)?;
        Ok(Pod::new(namespace, attachment, network.clone(), result))
    }

    /// Removes a pod as a runtime would: DEL by every plugin, then its namespace.
    ///
    /// # Panics
    /// When a plugin fails.
    #[track_caller]
    pub fn del_pod(&self, pod: Pod) {
        if let Err(error) = self.detach(&pod) {
            panic!("DEL of {} failed: {error}", pod.name());
        }
        let path = pod.attachment.netns.display();
        self.namespace.run(&format!("umount {path}"));
        self.namespace.run(&format!("rm {path}"));
    }

    /// DEL alone: the pod's processes and namespace stay.
    pub fn detach(&self, pod: &Pod) -> Result<(), PluginError> {
        self.runtime.del(&self.namespace, &pod.network, &pod.attachment, Some(&pod.result))
    }

    /// CHECK of a pod.
    pub fn check(&self, pod: &Pod) -> Result<(), PluginError> {
        self.runtime.check(&self.namespace, &pod.network, &pod.attachment, &pod.result)
    }

    /// netplug's command line, as an operator on the node would type it (words parted by blanks).
    ///
    /// # Panics
    /// When it fails: with what it said.
    #[track_caller]
    pub fn netplug(&self, line: &str) -> String {
        let output = self.try_netplug(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`netplug {line}` failed: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// [`Node::netplug`] for lines that may fail.
    #[track_caller]
    pub fn try_netplug(&self, line: &str) -> Output {
        let mut command = self.runtime.cli();
        command.args(line.split_whitespace());
        self.namespace.output(command, b"")
    }

    /// [`Node::netplug`] with `-o json`, parsed.
    #[track_caller]
    pub fn netplug_json(&self, line: &str) -> Value {
        let printed = self.netplug(&format!("{line} -o json"));
        serde_json::from_str(&printed)
            .unwrap_or_else(|error| panic!("`netplug {line}`: {error}: {printed}"))
    }

    /// `netplug watch` on the node, until the value is dropped.
    #[track_caller]
    pub fn watch(&self, line: &str) -> Watcher {
        let mut command = self.runtime.cli();
        command.arg("watch").args(line.split_whitespace());
        Watcher::start(&self.namespace, command)
    }

    /// Asserts that pods have left nothing behind: no link but the bridge, no lease, no endpoint, and no rule
    /// that was not there.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.before.assert_same_but_for_the_datapath(&Inventory::of(&self.namespace));
    }

    /// Asserts that neither the pinned maps nor the kernel's neighbours know of a pod.
    #[track_caller]
    pub fn assert_no_leftovers(&self) {
        let left = leftovers::of_pods(&self.namespace);
        assert!(left.is_empty(), "pods that are gone left behind:\n{}", left.join("\n"));
    }

    /// Unloads netplug and asserts that the node is as it was before its first pod. Where the reference plugins
    /// have been as well, bridge and sysctls may be theirs, and only the rest is looked at.
    #[track_caller]
    pub fn finish(self) {
        self.assert_clean();
        if self.network.is_ours() {
            self.assert_no_leftovers();
            self.netplug("unload");
            let after = Inventory::of(&self.namespace);
            if self.mixed.load(Ordering::Relaxed) {
                after.assert_unloaded();
                self.before.assert_same_but_for_the_datapath(&after);
            } else {
                self.before.assert_same(&after);
            }
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::env::var_os("NETPLUG_KEEP").is_some_and(|keep| keep == "1") {
            keep(&self.namespace);
        }
    }
}

fn keep(namespace: &Namespace) {
    let mut sleeper = Command::new("sleep");
    sleeper.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match namespace.enter(move || sleeper.spawn()) {
        Ok(child) => {
            let pid = child.id();
            eprintln!("kept: the node     nsenter -t {pid} -m -n");
            eprintln!("      a pod        nsenter -t {pid} -m nsenter --net=/run/netns/NAME");
            eprintln!(
                "      the outside  nsenter -t {pid} -m nsenter --net=/run/netplug-tests/outside"
            );
            eprintln!("      remove it    kill {pid}");
        }
        Err(error) => eprintln!("cannot keep the node: {error}"),
    }
}
