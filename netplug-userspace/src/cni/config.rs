//! The configuration: JSON in, validated values out. Keys of the reference `bridge` plugin keep their meaning.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::Value;

use super::Error;
use crate::ipam::{Range, RangeSet, store};

/// Every key that is understood; the rest is warned about.
const KEYS: &[&str] = &[
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "disableCheck",
    "disableGC",
    "capabilities",
    "args",
    "dns",
    "prevResult",
    "runtimeConfig",
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "ipMasq",
    "mtu",
    "hairpinMode",
    "promiscMode",
    "ipam",
    "steering",
    "masquerade",
    "uplinks",
    "sourceGuard",
    "mtuOverhead",
    "revisit",
    "flowCache",
    "attach",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    #[serde(default = "default_bridge")]
    pub(super) bridge: String,
    #[serde(default = "yes")]
    pub(super) is_gateway: bool,
    #[serde(default)]
    pub(super) is_default_gateway: bool,
    #[serde(default = "yes")]
    pub(super) hairpin_mode: bool,
    pub(super) ip_masq: Option<bool>,
    pub(super) mtu: Option<u32>,
    #[serde(default)]
    pub(super) mtu_overhead: u32,
    pub(super) ipam: Option<Ipam>,
    pub(super) dns: Option<Value>,
    #[serde(default)]
    pub(super) steering: Steering,
    pub(super) masquerade: Option<Masquerade>,
    pub(super) uplinks: Option<Vec<String>>,
    #[serde(default = "yes")]
    pub(super) source_guard: bool,
    pub(super) revisit: Option<Value>,
    pub(super) flow_cache: Option<u32>,
    #[serde(default)]
    pub(super) attach: Attach,
    pub(super) prev_result: Option<Value>,
    #[serde(default)]
    pub(super) runtime_config: BTreeMap<String, Value>,
}

fn default_bridge() -> String {
    "cbr0".into()
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Steering {
    #[default]
    Learn,
    Always,
    Direct,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Attach {
    #[default]
    Auto,
    Tcx,
    Clsact,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Masquerade {
    Switch(bool),
    #[serde(rename_all = "camelCase")]
    Except {
        #[serde(rename = "nonMasqueradeCIDRs")]
        non_masquerade_cidrs: Vec<IpNetwork>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ipam {
    #[serde(rename = "type")]
    kind: String,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    ranges: Vec<Vec<RawRange>>,
    #[serde(flatten)]
    single: Option<RawRange>,
    #[serde(default)]
    pub(super) routes: Vec<Route>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRange {
    subnet: IpNetwork,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Route {
    pub(super) dst: IpNetwork,
    pub(super) gw: Option<IpAddr>,
}

impl Config {
    /// Reads and validates; warns on stderr of keys that nobody understands.
    pub(super) fn read(json: &Value) -> Result<Self, Error> {
        let config: Self = serde_path_to_error::deserialize(json).map_err(|error| {
            let key = error.path().to_string();
            Error::config(if key == "." { "configuration".into() } else { key }, error.inner())
        })?;
        for key in json.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if !KEYS.contains(&key.as_str()) {
                let nearest = KEYS.iter().min_by_key(|known| distance(known, key)).unwrap_or(&"");
                eprintln!(
                    "netplug: warning: {key} is not a key of netplug's; the nearest is {nearest}"
                );
            }
        }
        config.refuse_capabilities()?;
        if config.is_default_gateway && !config.is_gateway && json.get("isGateway").is_some() {
            return Err(Error::config(
                "isDefaultGateway",
                "cannot be true where isGateway is false",
            ));
        }
        if config.bridge.is_empty()
            || config.bridge.len() > 15
            || config.bridge.contains(['/', ' '])
        {
            return Err(Error::config(
                "bridge",
                format!("{:?} is not an interface name", config.bridge),
            ));
        }
        if config.flow_cache == Some(0) {
            return Err(Error::config("flowCache", "0 holds no flow; use steering `always`"));
        }
        if let (Some(masquerade), Some(switch)) = (&config.masquerade, config.ip_masq)
            && !switch
            && !matches!(masquerade, Masquerade::Switch(false))
        {
            return Err(Error::config("ipMasq", "is false, and masquerade says otherwise"));
        }
        if let Some(Masquerade::Except { non_masquerade_cidrs }) = &config.masquerade {
            for cidr in non_masquerade_cidrs {
                if cidr.ip() != cidr.network() {
                    return Err(Error::config(
                        "masquerade.nonMasqueradeCIDRs",
                        format!("{cidr} has host bits set"),
                    ));
                }
            }
        }
        config.revisit()?;
        Ok(config)
    }

    /// Capabilities that this plugin does not serve: a pod must not come up without what was asked for it.
    fn refuse_capabilities(&self) -> Result<(), Error> {
        for (key, value) in &self.runtime_config {
            let is_empty = match value {
                Value::Null => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            let instead = match key.to_ascii_lowercase().as_str() {
                "portmappings" => {
                    ("runtimeConfig.portMappings", "chain the portmap plugin behind netplug")
                }
                "bandwidth" => {
                    ("runtimeConfig.bandwidth", "chain the bandwidth plugin behind netplug")
                }
                "ips" => ("runtimeConfig.ips", "take the capability out of the configuration"),
                "ipranges" => ("runtimeConfig.ipRanges", "name the ranges in ipam.ranges"),
                "mac" => ("runtimeConfig.mac", "take the capability out of the configuration"),
                _ => continue,
            };
            if !is_empty {
                let (key, instead) = instead;
                return Err(Error::Unsupported { key, value: value.to_string(), instead });
            }
        }
        Ok(())
    }

    /// The age at which flows ask again: seconds as a number, or with a unit (`"20s"`, `"500ms"`).
    pub(super) fn revisit(&self) -> Result<Duration, Error> {
        let wrong = |value: &Value| {
            Error::config(
                "revisit",
                format!(
                    "{value} is not a time between 100ms and 25s: below conntrack's 30 s for UDP"
                ),
            )
        };
        let Some(value) = &self.revisit else { return Ok(Duration::from_secs(20)) };
        let duration = match value {
            Value::Number(seconds) => {
                seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            }
            Value::String(text) => {
                let (number, unit) = match text.strip_suffix("ms") {
                    Some(number) => (number, 0.001),
                    None => (text.strip_suffix('s').unwrap_or(text), 1.0),
                };
                number
                    .trim()
                    .parse()
                    .ok()
                    .and_then(|n: f64| Duration::try_from_secs_f64(n * unit).ok())
            }
            _ => None,
        };
        duration
            .filter(|revisit| {
                (Duration::from_millis(100)..=Duration::from_secs(25)).contains(revisit)
            })
            .ok_or_else(|| wrong(value))
    }
}

impl Ipam {
    /// Where leases are kept.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| store::DATA_DIR.into())
    }

    /// One set for each address that a pod gets.
    pub(super) fn sets(&self) -> Result<Vec<RangeSet>, Error> {
        if !matches!(self.kind.as_str(), "host-local" | "netplug") {
            return Err(Error::Unsupported {
                key: "ipam.type",
                value: self.kind.clone(),
                instead: "use host-local, whose leases netplug keeps itself",
            });
        }
        let raw: Vec<Vec<RawRange>> = self
            .single
            .iter()
            .map(|range| vec![range.clone()])
            .chain(self.ranges.iter().cloned())
            .collect();
        if raw.iter().all(Vec::is_empty) {
            return Err(Error::config("ipam.ranges", "names no range"));
        }
        let mut sets: Vec<RangeSet> = Vec::new();
        for ranges in raw {
            let ranges = ranges
                .into_iter()
                .map(|raw| Range::new(raw.subnet, raw.range_start, raw.range_end, raw.gateway))
                .collect::<Result<Vec<_>, _>>()?;
            let set = RangeSet { ranges };
            let is_mixed = set
                .ranges
                .iter()
                .any(|range| range.first.is_ipv4() != set.ranges[0].first.is_ipv4());
            if is_mixed {
                return Err(Error::config(
                    "ipam.ranges",
                    format!("{set} mixes families in one set"),
                ));
            }
            for (at, range) in set.ranges.iter().enumerate() {
                let others = sets.iter().flat_map(|set| &set.ranges).chain(&set.ranges[..at]);
                if let Some(other) = others.into_iter().find(|other| other.overlaps(range)) {
                    return Err(Error::config("ipam.ranges", format!("{range} overlaps {other}")));
                }
            }
            sets.push(set);
        }
        Ok(sets)
    }
}

/// Levenshtein's distance, for the nearest key.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_ascii_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(config: Value) -> String {
        let read = Config::read(&config)
            .and_then(|config| config.ipam.map_or(Ok(Vec::new()), |ipam| ipam.sets()));
        let error = read.unwrap_err();
        assert!(matches!(error.code(), 2 | 7), "{error}: {}", error.code());
        error.to_string()
    }

    #[test]
    fn what_cannot_be_is_refused_by_key_and_value() {
        assert!(
            wrong(json!({"steering": "sometimes"}))
                .starts_with("steering: unknown variant `sometimes`")
        );
        assert!(
            wrong(json!({"masquerade": {"nonMasqueradeCIDRs": ["10.1.2.3/8"]}}))
                .contains("10.1.2.3/8 has host bits")
        );
        assert!(wrong(json!({"ipam": {"type": "dhcp", "subnet": "10.0.0.0/24"}})).contains("dhcp"));
        assert!(
            wrong(json!({"ipam": {"type": "host-local"}})).contains("ipam.ranges: names no range")
        );
        let overlap = json!({"ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.128/25"}]]}});
        assert!(wrong(overlap).contains("overlaps"));
        assert!(wrong(json!({"revisit": "40s"})).starts_with("revisit: \"40s\""));
        assert!(wrong(json!({"flowCache": 0})).contains("flowCache"));
        assert!(wrong(json!({"ipMasq": false, "masquerade": true})).contains("ipMasq"));
    }

    #[test]
    fn what_a_pod_would_come_up_without_is_refused_in_either_spelling() {
        for key in ["portMappings", "PortMappings"] {
            let config = json!({"runtimeConfig": {key: [{"HostPort": 80, "ContainerPort": 80}]}});
            assert!(wrong(config).contains("chain the portmap plugin"));
        }
        assert!(
            Config::read(
                &json!({"runtimeConfig": {"portMappings": [], "dns": {"Servers": ["10.0.0.10"]}}})
            )
            .is_ok()
        );
    }

    #[test]
    fn a_reference_bridge_configuration_is_understood() {
        let config = Config::read(&json!({
            "cniVersion": "1.0.0", "name": "net", "type": "netplug", "bridge": "cbr0", "isGateway": true, "ipMasq": true,
            "hairpinMode": true, "mtu": 1400,
            "ipam": {"type": "host-local", "subnet": "10.1.0.0/16", "rangeStart": "10.1.2.0", "gateway": "10.1.0.1",
                     "routes": [{"dst": "0.0.0.0/0"}]},
        }))
        .unwrap();
        assert_eq!((config.mtu, config.ip_masq), (Some(1400), Some(true)));
        let sets = config.ipam.unwrap().sets().unwrap();
        assert_eq!(sets[0].ranges[0].first.to_string(), "10.1.2.0");
    }

    #[test]
    fn times_are_read_with_and_without_unit() {
        for (value, milliseconds) in
            [(json!(2), 2000), (json!("2s"), 2000), (json!("500ms"), 500), (json!(0.5), 500)]
        {
            let config = Config::read(&json!({"revisit": value})).unwrap();
            assert_eq!(config.revisit().unwrap().as_millis(), milliseconds);
        }
    }
}
