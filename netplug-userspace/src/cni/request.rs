//! The request: environment and stdin. What the spec demands of them is checked here, once.

use std::env;
use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

use super::{Error, VERSIONS};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Version,
}

/// A call of the runtime's.
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) container: String,
    pub(super) ifname: String,
    /// Empty where DEL is called without one.
    pub(super) netns: Option<PathBuf>,
    pub(super) cni_version: String,
    /// The network's name.
    pub(super) network: String,
    /// The whole configuration, as it came.
    pub(super) config: Value,
}

fn missing(variable: &'static str) -> Error {
    Error::Environment { variable, wrong: "is missing".into() }
}

impl Request {
    pub(super) fn read() -> Result<Self, Error> {
        let variable = |name| env::var(name).unwrap_or_default();
        let command = match variable("CNI_COMMAND").as_str() {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "VERSION" => Command::Version,
            other => {
                let wrong = format!("{other} is not one of ADD, DEL, CHECK, VERSION");
                return Err(Error::Environment { variable: "CNI_COMMAND", wrong });
            }
        };
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input).map_err(Error::Input)?;
        let config: Value = match (command, input.trim()) {
            (Command::Version, "") => Value::Object(serde_json::Map::new()),
            (_, input) => serde_json::from_str(input).map_err(Error::Json)?,
        };
        let text =
            |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut cni_version = text("cniVersion");
        if command == Command::Version {
            // Runtimes ask with whatever they have; the answer lists what is spoken.
            if cni_version.is_empty() {
                cni_version = VERSIONS[VERSIONS.len() - 1].into();
            }
        } else if !VERSIONS.contains(&cni_version.as_str()) {
            let shown =
                if cni_version.is_empty() { "0.1.0 (none is given)".into() } else { cni_version };
            return Err(Error::Version(shown));
        }
        let netns =
            Some(PathBuf::from(variable("CNI_NETNS"))).filter(|path| !path.as_os_str().is_empty());
        let request = Self {
            command,
            container: variable("CNI_CONTAINERID"),
            ifname: variable("CNI_IFNAME"),
            netns,
            cni_version,
            network: text("name"),
            config,
        };
        if command != Command::Version {
            request.validate()?;
        }
        Ok(request)
    }

    fn validate(&self) -> Result<(), Error> {
        if self.container.is_empty() {
            return Err(missing("CNI_CONTAINERID"));
        }
        if !is_name(&self.container) {
            let wrong = format!("{} is not a container id", self.container);
            return Err(Error::Environment { variable: "CNI_CONTAINERID", wrong });
        }
        if self.ifname.is_empty() {
            return Err(missing("CNI_IFNAME"));
        }
        if self.ifname.len() > 15
            || matches!(self.ifname.as_str(), "." | "..")
            || self.ifname.contains(['/', ':'])
            || self.ifname.contains(char::is_whitespace)
        {
            let wrong = format!("{} is not an interface name", self.ifname);
            return Err(Error::Environment { variable: "CNI_IFNAME", wrong });
        }
        if self.netns.is_none() && self.command != Command::Del {
            return Err(missing("CNI_NETNS"));
        }
        if !is_name(&self.network) {
            return Err(Error::config(
                "name",
                format!("{:?} is not a network's name", self.network),
            ));
        }
        Ok(())
    }
}

/// As the spec has names and container ids: alphanumeric first, then also `_`, `.` and `-`.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}
