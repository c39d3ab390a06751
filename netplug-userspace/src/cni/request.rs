//! The request: environment and stdin. What the spec demands of them is checked here, once.

use std::env;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::{Error, VERSIONS, config};
use crate::node::namespace::Namespace;
use crate::node::{Mac, link};

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
    /// The address that `CNI_ARGS` asks for; podman's `--ip`.
    pub(super) address: Option<IpAddr>,
    /// The MAC that `CNI_ARGS` asks for; podman's `--mac-address`.
    pub(super) mac: Option<Mac>,
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
        let (address, mac) =
            if command == Command::Add { wanted(&variable("CNI_ARGS"))? } else { (None, None) };
        let request = Self {
            command,
            address,
            mac,
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

    /// The pod's namespace. The node's own is none: what is set up there would be the node's.
    pub(super) fn pod(&self) -> Result<Namespace, Error> {
        let path = self.netns.as_deref().ok_or_else(|| missing("CNI_NETNS"))?;
        let pod = Namespace::open(path)?;
        if pod.is_own()? {
            let wrong = format!("{} is the node's own namespace, not a pod's", path.display());
            return Err(Error::Environment { variable: "CNI_NETNS", wrong });
        }
        Ok(pod)
    }

    /// The same, for who takes a pod down; `None` where it is gone, or was none.
    pub(super) fn what_is_left_of_pod(&self) -> Result<Option<Namespace>, Error> {
        let Some(path) = self.netns.as_deref() else { return Ok(None) };
        match Namespace::open_what_is_left(path)? {
            Some(pod) if pod.is_own()? => Ok(None),
            left => Ok(left),
        }
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
        if !link::is_name(&self.ifname) {
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

/// `IP` and `MAC` of `CNI_ARGS`; its other keys are not for netplug.
fn wanted(args: &str) -> Result<(Option<IpAddr>, Option<Mac>), Error> {
    let (mut address, mut mac) = (None, None);
    for (key, value) in args.split(';').filter_map(|arg| arg.split_once('=')) {
        let wrong = || Error::Environment {
            variable: "CNI_ARGS",
            wrong: format!("{key}={value} is not what a pod can have"),
        };
        match key {
            "IP" if !value.is_empty() => {
                address = Some(config::address(value).ok_or_else(wrong)?);
            }
            "MAC" if !value.is_empty() => mac = Some(config::mac(value).ok_or_else(wrong)?),
            _ => {}
        }
    }
    Ok((address, mac))
}

/// As the spec has names and container ids: alphanumeric first, then also `_`, `.` and `-`.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wishes_of_cni_args_are_found_in_any_order() {
        let args = "K8S_POD_NAME=a;MAC=02:00:00:00:00:09;IgnoreUnknown=1;IP=10.1.2.9";
        let (address, mac) = wanted(args).unwrap();
        assert_eq!(address, Some(IpAddr::from([10, 1, 2, 9])));
        assert_eq!(mac, Some([2, 0, 0, 0, 0, 9]));
        assert_eq!(wanted("").unwrap(), (None, None));
        assert_eq!(wanted("IP=ten").unwrap_err().code(), 4);
    }

    #[test]
    fn names_cannot_leave_their_folder() {
        for name in ["", "../x", ".", "-x", "a/b", "a b"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("default-c1") && is_name("a_b.c"));
    }
}
