//! The file of ip-masq-agent: YAML or JSON with `nonMasqueradeCIDRs`, `masqLinkLocal`, `masqLinkLocalIPv6`, `resyncInterval`.
//!
//! A key that is missing has ip-masq-agent's default, and so has all of it where there is no file. A file with anything wrong
//! in it is refused as a whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnetwork::IpNetwork;
use yaml_rust2::{Yaml, YamlLoader};

use super::{cidrs, duration};

/// What a ConfigMap may have.
const LARGEST: u64 = 1 << 20;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFile {
    /// To where pods' packets are not masqueraded.
    pub non_masquerade: Vec<IpNetwork>,
    /// Whether those to 169.254.0.0/16 are.
    pub masq_link_local: bool,
    /// Whether those to fe80::/10 are.
    pub masq_link_local_ipv6: bool,
    /// How often the file is read again.
    pub resync_interval: Duration,
    /// Keys that nobody understands.
    pub unknown: Vec<String>,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("{path} is neither YAML nor JSON")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where.
        source: yaml_rust2::ScanError,
    },
    /// A key's value cannot be.
    #[error("{path}: {key}: {wrong}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What is wrong with its value.
        wrong: String,
    },
}

impl AgentFile {
    /// ip-masq-agent's defaults.
    fn defaults() -> Result<Self, cidrs::Wrong> {
        Ok(Self {
            non_masquerade: cidrs::parse(cidrs::IP_MASQ_AGENT)?,
            masq_link_local: false,
            masq_link_local_ipv6: false,
            resync_interval: Duration::from_secs(60),
            unknown: Vec::new(),
        })
    }

    /// Reads a file that is there.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fail = |source| Error::Read { path: path.into(), source };
        let mut text = String::new();
        let read =
            File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
        if read.map_err(fail)? as u64 > LARGEST {
            let wrong = format!("is larger than {LARGEST} octets");
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, wrong)));
        }
        Self::parse(path, &text)
    }

    /// Reads a file that may be missing, which means the defaults.
    pub fn read_or_default(path: &Path) -> Result<Self, Error> {
        match Self::read(path) {
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::parse(path, "")
            }
            result => result,
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let value =
            |key: &str, wrong: String| Error::Value { path: path.into(), key: key.into(), wrong };
        let documents = YamlLoader::load_from_str(text)
            .map_err(|source| Error::Syntax { path: path.into(), source })?;
        let keys = match documents.as_slice() {
            [] | [Yaml::Null] => None,
            [Yaml::Hash(keys)] => Some(keys),
            [_] => return Err(value("file", "has no keys at its top".into())),
            _ => return Err(value("file", "has several documents".into())),
        };
        let mut file = Self::defaults().map_err(|wrong| value("defaults", wrong.to_string()))?;
        for (key, found) in keys.into_iter().flatten() {
            let Some(key) = key.as_str() else {
                return Err(value("file", format!("the key {} is no text", written(key))));
            };
            let wrong = |what: &str| value(key, format!("{} is {what}", written(found)));
            match key {
                // Go leaves what is null as it was.
                _ if found.is_null() => {}
                "nonMasqueradeCIDRs" => {
                    let list = found.as_vec().ok_or_else(|| wrong("not a list of CIDRs"))?;
                    let texts = list
                        .iter()
                        .map(|cidr| {
                            cidr.as_str().ok_or_else(|| {
                                value(key, format!("{} is not a CIDR", written(cidr)))
                            })
                        })
                        .collect::<Result<Vec<_>, _>>()?;
                    file.non_masquerade =
                        cidrs::parse_all(&texts).map_err(|wrong| value(key, wrong.to_string()))?;
                }
                "masqLinkLocal" | "masqLinkLocalIPv6" => {
                    let is_wanted =
                        found.as_bool().ok_or_else(|| wrong("neither true nor false"))?;
                    if key == "masqLinkLocal" {
                        file.masq_link_local = is_wanted;
                    } else {
                        file.masq_link_local_ipv6 = is_wanted;
                    }
                }
                "resyncInterval" => {
                    file.resync_interval = found
                        .as_str()
                        .and_then(duration::parse)
                        .filter(|interval| *interval >= Duration::from_secs(1))
                        .ok_or_else(|| {
                            wrong("not a time of a second or more, like 60s or 1m30s")
                        })?;
                }
                // How many CIDRs ip-masq-agent bears; the datapath has a limit of its own.
                "cidrLimit" => {}
                _ => file.unknown.push(key.into()),
            }
        }
        Ok(file)
    }
}

/// A value as people wrote it, for messages.
fn written(value: &Yaml) -> String {
    match value {
        Yaml::String(text) => format!("{text:?}"),
        Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(is_true) => is_true.to_string(),
        Yaml::Array(_) => "a list".into(),
        Yaml::Hash(_) => "a mapping".into(),
        _ => "nothing".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AgentFile, Error> {
        AgentFile::parse(Path::new("config"), text)
    }

    #[test]
    fn yaml_and_json_say_the_same() {
        let yaml = "nonMasqueradeCIDRs:\n  - 10.0.0.0/8\n  - fd00::/8\nmasqLinkLocal: true\nresyncInterval: 1m30s\n";
        let json = r#"{"nonMasqueradeCIDRs": ["10.0.0.0/8", "fd00::/8"], "masqLinkLocal": true, "resyncInterval": "1m30s"}"#;
        let file = parse(yaml).unwrap();
        assert_eq!(file, parse(json).unwrap());
        assert_eq!(file.resync_interval, Duration::from_secs(90));
        assert_eq!((file.masq_link_local, file.masq_link_local_ipv6), (true, false));
        assert_eq!(file.non_masquerade.len(), 2);
    }

    #[test]
    fn what_is_missing_is_as_ip_masq_agent_has_it() {
        for text in ["", "# nothing\n", "---\n", "null", "{}", "nonMasqueradeCIDRs:\n"] {
            assert_eq!(parse(text).unwrap(), AgentFile::defaults().unwrap(), "{text}");
        }
        assert_eq!(parse("nonMasqueradeCIDRs: []").unwrap().non_masquerade, []);
        assert_eq!(parse("cidrLimit: 3\nmasqlinklocal: true").unwrap().unknown, ["masqlinklocal"]);
    }

    #[test]
    fn what_is_wrong_is_named_by_key_and_value() {
        for (text, key, named) in [
            ("nonMasqueradeCIDRs: [10.1.0.0/8]", "nonMasqueradeCIDRs", "10.1.0.0/8 has host bits"),
            ("nonMasqueradeCIDRs: [10.0.0.0/8, ten]", "nonMasqueradeCIDRs", "\"ten\""),
            (
                "nonMasqueradeCIDRs: 10.0.0.0/8",
                "nonMasqueradeCIDRs",
                "\"10.0.0.0/8\" is not a list",
            ),
            ("nonMasqueradeCIDRs: [10]", "nonMasqueradeCIDRs", "10 is not a CIDR"),
            ("masqLinkLocal: maybe", "masqLinkLocal", "\"maybe\" is neither true nor false"),
            ("masqLinkLocalIPv6: 1", "masqLinkLocalIPv6", "1 is neither true nor false"),
            ("resyncInterval: 60", "resyncInterval", "60 is not a time"),
            ("resyncInterval: 1ms", "resyncInterval", "\"1ms\" is not a time"),
            ("- a", "file", "has no keys"),
            ("a: 1\n---\nb: 1\n", "file", "several documents"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("config: {key}: ")) && said.contains(named),
                "{said}"
            );
        }
        assert!(matches!(parse("a: [1"), Err(Error::Syntax { .. })));
        assert!(matches!(parse("a: 1\na: 2"), Err(Error::Syntax { .. })));
    }
}
