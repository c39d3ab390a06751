//! A container runtime, as far as a network plugin can tell: it calls the plugins of a list in turn, with
//! environment and standard input as the CNI specification has them, and hands each result to the next.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::network::Network;

/// Where Debian installs the reference plugins.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";
/// Where a node's copy of the binary under test is, under its own name and as `loopback`.
const OUR_PLUGINS: &str = "/run/netplug-tests/bin";

/// What a plugin was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `ADD`
    Add,
    /// `DEL`
    Del,
    /// `CHECK`
    Check,
    /// `VERSION`
    Version,
}

impl Verb {
    const fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Version => "VERSION",
        }
    }
}

/// A plugin that failed: its name, and the error JSON of the specification (or what it printed instead).
#[derive(Debug, Clone)]
pub struct PluginError {
    /// Which plugin of the list.
    pub plugin: String,
    /// `code`; 0 where the output was not an error JSON.
    pub code: u64,
    /// `msg`.
    pub msg: String,
    /// `details`.
    pub details: String,
    /// What it said on standard error.
    pub stderr: String,
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: error {}: {}; {}; {}",
            self.plugin, self.code, self.msg, self.details, self.stderr
        )
    }
}

impl std::error::Error for PluginError {}

/// One interface of one container: what every call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`; empty where the runtime has lost it.
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`.
    pub args: String,
}

/// The binary under test.
///
/// # Panics
/// When `NETPLUG_BIN` does not name it.
#[must_use]
pub fn netplug_binary() -> PathBuf {
    let path = std::env::var_os("NETPLUG_BIN").map(PathBuf::from);
    path.expect("NETPLUG_BIN must name the netplug binary: run `cargo xtask test`, which builds it and sets this")
}

/// The runtime of one node.
#[derive(Debug, Clone)]
pub struct Runtime {
    path: String,
}

impl Runtime {
    /// A runtime in `machine`, which gets its copy of the binary if this run has one.
    pub fn new(machine: &Namespace) -> Self {
        if std::env::var_os("NETPLUG_BIN").is_some() {
            // Read here, written there: the machine's mounts may cover the folder that it was built in.
            let binary = std::fs::read(netplug_binary()).expect("NETPLUG_BIN can be read");
            machine.enter(|| install(&binary)).expect("the machine's /run is writable");
        }
        Self { path: format!("{OUR_PLUGINS}:{REFERENCE_PLUGINS}") }
    }

    /// ADD by every plugin of the list; the last result.
    pub fn add(
        &self,
        machine: &Namespace,
        list: &Network,
        of: &Attachment,
    ) -> Result<Value, PluginError> {
        let mut previous = None;
        for plugin in &list.plugins {
            let config = config(list, plugin, previous.as_ref());
            let result = self.call(machine, Verb::Add, plugin_name(plugin), of, &config)?;
            previous = Some(result);
        }
        Ok(previous.unwrap_or(Value::Null))
    }

    /// DEL by every plugin, last first. As the specification wants, `result` is ADD's final one, if it is
    /// still known.
    pub fn del(
        &self,
        machine: &Namespace,
        list: &Network,
        of: &Attachment,
        result: Option<&Value>,
    ) -> Result<(), PluginError> {
        list.plugins.iter().rev().try_for_each(|plugin| {
            let config = config(list, plugin, result);
            self.call(machine, Verb::Del, plugin_name(plugin), of, &config).map(drop)
        })
    }

    /// CHECK by every plugin, with ADD's final result.
    pub fn check(
        &self,
        machine: &Namespace,
        list: &Network,
        of: &Attachment,
        result: &Value,
    ) -> Result<(), PluginError> {
        list.plugins.iter().try_for_each(|plugin| {
            let config = config(list, plugin, Some(result));
            self.call(machine, Verb::Check, plugin_name(plugin), of, &config).map(drop)
        })
    }

    /// What versions a plugin speaks.
    pub fn version(&self, machine: &Namespace, plugin: &str) -> Result<Value, PluginError> {
        let dummy = Attachment {
            container: String::new(),
            netns: "dummy".into(),
            interface: "dummy".into(),
            args: String::new(),
        };
        self.call(machine, Verb::Version, plugin, &dummy, &json!({"cniVersion": "1.0.0"}))
    }

    /// One call of one plugin: `config` on its standard input, what it printed as JSON.
    pub fn call(
        &self,
        machine: &Namespace,
        verb: Verb,
        plugin: &str,
        of: &Attachment,
        config: &Value,
    ) -> Result<Value, PluginError> {
        let command = self.command(verb, plugin, of);
        let output = machine.output(command, config.to_string().as_bytes());
        let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() {
            return Ok(printed);
        }
        let text = |key: &str| printed[key].as_str().unwrap_or_default().to_owned();
        let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if printed.is_null() {
            stderr += &String::from_utf8_lossy(&output.stdout);
            stderr += &format!(" ({})", output.status);
        }
        Err(PluginError {
            plugin: plugin.into(),
            code: printed["code"].as_u64().unwrap_or_default(),
            msg: text("msg"),
            details: text("details"),
            stderr,
        })
    }

    /// The command of a call, for those who time it.
    #[must_use]
    pub fn command(&self, verb: Verb, plugin: &str, of: &Attachment) -> Command {
        let folder = if plugin == "netplug" { OUR_PLUGINS } else { REFERENCE_PLUGINS };
        let mut command = Command::new(Path::new(folder).join(plugin));
        // Runtimes keep their own environment; ours would only hide what a plugin wrongly depends on.
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb.text())
            .env("CNI_CONTAINERID", &of.container)
            .env("CNI_NETNS", &of.netns)
            .env("CNI_IFNAME", &of.interface)
            .env("CNI_ARGS", &of.args)
            .env("CNI_PATH", &self.path);
        command
    }

    /// netplug as a command-line tool.
    #[must_use]
    pub fn cli(&self) -> Command {
        let mut command = Command::new(Path::new(OUR_PLUGINS).join("netplug"));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}

/// What goes to a plugin's standard input.
#[must_use]
pub fn config(list: &Network, plugin: &Value, previous: Option<&Value>) -> Value {
    let mut config = plugin.clone();
    config["cniVersion"] = json!(list.cni_version);
    config["name"] = json!(list.name);
    if let Some(previous) = previous {
        config["prevResult"] = previous.clone();
    }
    config
}

/// A plugin's name in a list.
#[must_use]
pub fn plugin_name(plugin: &Value) -> &str {
    plugin["type"].as_str().expect("every plugin here has a type")
}

/// The pod's addresses in a result of CNI 0.3.0 or later.
#[must_use]
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parse = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    ips.iter().filter_map(parse).collect()
}

fn install(binary: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let folder = Path::new(OUR_PLUGINS);
    std::fs::create_dir_all(folder)?;
    let path = folder.join("netplug");
    // Closed before it is run: a file open for writing cannot be.
    std::fs::write(&path, binary)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    std::os::unix::fs::symlink("netplug", folder.join("loopback"))
}
