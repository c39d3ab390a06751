//! The configuration: JSON in, validated values out. Keys of the reference `bridge` plugin keep their meaning.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Value, json};

use super::timeouts::{self, Timeouts};
use super::{Error, host_ports};
use crate::datapath::FLOWS_MOST;
use crate::ipam::{Range, RangeSet, store};
use crate::node::{Mac, link};
use crate::settings::cidrs;
use crate::warning::warn;

/// Every key that is understood; the rest is warned about.
#[rustfmt::skip]
const KEYS: &[&str] = &[
    "cniVersion", "cniVersions", "name", "type", "disableCheck", "disableGC", "capabilities", "args", "dns",
    "prevResult", "runtimeConfig",
    // The reference bridge plugin's; `addIf` was kubenet's.
    "bridge", "isGateway", "isDefaultGateway", "forceAddress", "ipMasq", "mtu", "hairpinMode", "promiscMode",
    "macspoofchk", "enabledad", "vlan", "vlanTrunk", "preserveDefaultVlan", "disableContainerInterface",
    "portIsolation", "addIf", "ipam",
    // netplug's.
    "steering", "masquerade", "uplinks", "sourceGuard", "mtuOverhead", "revisit", "timeouts", "flowCache", "attach",
];

/// Every key below `ipam` that is understood: host-local's.
const IPAM_KEYS: &[&str] = &[
    "type",
    "subnet",
    "rangeStart",
    "rangeEnd",
    "gateway",
    "ranges",
    "routes",
    "dataDir",
    "resolvConf",
];

/// Every key below `masquerade` that is understood: ip-masq-agent's.
const MASQUERADE_KEYS: &[&str] = &["nonMasqueradeCIDRs", "masqLinkLocal", "masqLinkLocalIPv6"];

const NO_BANDWIDTH: &str =
    "netplug does not limit bandwidth, and its short way passes by what other plugins limit";

/// Keys of the reference bridge plugin that ask for what netplug does not do.
const REFUSED: &[(&str, &str)] = &[
    ("vlan", "use the reference bridge plugin, and chain netplug behind it"),
    ("vlanTrunk", "use the reference bridge plugin, and chain netplug behind it"),
    ("portIsolation", "use rules in FORWARD, which pod to pod packets pass"),
    ("disableContainerInterface", "take it out: netplug brings the pod's interface up"),
];

/// Keys of the reference bridge plugin that change nothing here.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("promiscMode", "a pod reaches itself by a service without it"),
    ("enabledad", "addresses are usable at once, and never given out twice"),
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Config {
    #[serde(default = "default_bridge")]
    pub(super) bridge: String,
    #[serde(default = "yes")]
    pub(super) is_gateway: bool,
    pub(super) is_default_gateway: Option<bool>,
    #[serde(default)]
    pub(super) force_address: bool,
    #[serde(default)]
    macspoofchk: bool,
    #[serde(default = "yes")]
    pub(super) hairpin_mode: bool,
    pub(super) ip_masq: Option<bool>,
    mtu: Option<u32>,
    #[serde(default)]
    pub(super) mtu_overhead: u32,
    pub(super) ipam: Option<Ipam>,
    pub(super) dns: Option<Value>,
    #[serde(default)]
    pub(super) steering: Steering,
    masquerade: Option<Value>,
    pub(super) uplinks: Option<Vec<String>>,
    #[serde(default = "yes")]
    pub(super) source_guard: bool,
    pub(super) revisit: Option<Value>,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    pub(super) flow_cache: Option<u32>,
    #[serde(default)]
    pub(super) attach: Attach,
    pub(super) prev_result: Option<Value>,
    #[serde(default)]
    pub(super) runtime_config: BTreeMap<String, Value>,
    args: Option<Value>,
}

/// kubenet's.
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

/// `masquerade`, where it is an object.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct RawMasquerade {
    #[serde(rename = "nonMasqueradeCIDRs")]
    cidrs: Vec<String>,
    #[serde(rename = "masqLinkLocal")]
    link_local: bool,
    #[serde(rename = "masqLinkLocalIPv6")]
    link_local_ipv6: bool,
}

impl Default for RawMasquerade {
    fn default() -> Self {
        Self { cidrs: vec![cidrs::KUBENET.into()], link_local: false, link_local_ipv6: false }
    }
}

/// What becomes of pods' addresses on the way out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Masquerade {
    /// They become the node's.
    pub(super) on: bool,
    /// But to these they stay.
    pub(super) non_masquerade: Vec<IpNetwork>,
    /// Whether they become so to 169.254.0.0/16.
    pub(super) link_local: bool,
    /// Whether they become so to fe80::/10.
    pub(super) link_local_ipv6: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ipam {
    #[serde(rename = "type")]
    kind: String,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    ranges: Vec<Vec<RawRange>>,
    subnet: Option<IpNetwork>,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
    #[serde(default)]
    pub(super) routes: Vec<Route>,
    pub(super) resolv_conf: Option<PathBuf>,
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
        warn_of_unknown(json, KEYS, "");
        warn_of_unknown(&json["ipam"], IPAM_KEYS, "ipam.");
        warn_of_unknown(&json["timeouts"], timeouts::KEYS, "timeouts.");
        for (key, why) in WITHOUT_EFFECT.iter().filter(|(key, _)| is_set(&json[*key])) {
            warn(format_args!("{key} has no effect: {why}"));
        }
        if let Some((key, instead)) = REFUSED.iter().find(|(key, _)| is_set(&json[*key])) {
            return Err(Error::Unsupported { key, value: json[*key].to_string(), instead });
        }
        if config.macspoofchk && !config.source_guard {
            return Err(Error::config("macspoofchk", "is true, and sourceGuard is false"));
        }
        config.refuse_capabilities()?;
        if config.is_default_gateway == Some(true)
            && !config.is_gateway
            && json.get("isGateway").is_some()
        {
            return Err(Error::config(
                "isDefaultGateway",
                "cannot be true where isGateway is false",
            ));
        }
        if !link::is_name(&config.bridge) {
            return Err(Error::config(
                "bridge",
                format!("{:?} is not an interface name", config.bridge),
            ));
        }
        for route in config.ipam.iter().flat_map(|ipam| &ipam.routes) {
            // The kernel would refuse it, or keep another than was asked for.
            cidrs::check(route.dst).map_err(|wrong| Error::config("ipam.routes", wrong))?;
        }
        match config.flow_cache {
            Some(0) => {
                return Err(Error::config("flowCache", "0 holds no flow; use steering `always`"));
            }
            Some(entries) if entries > FLOWS_MOST => {
                return Err(Error::config(
                    "flowCache",
                    format!("{entries} entries are more than the {FLOWS_MOST} that there may be"),
                ));
            }
            _ => {}
        }
        config.host_ports()?;
        config.masquerade()?;
        config.revisit()?;
        Ok(config)
    }

    /// The MTU of pods, where it is named, without the overhead. As for the reference plugins, 0 names none.
    pub(super) fn mtu(&self) -> Option<u32> {
        self.mtu.filter(|mtu| *mtu != 0)
    }

    /// What becomes of pods' addresses on the way out.
    pub(super) fn masquerade(&self) -> Result<Masquerade, Error> {
        let (on, keys) = match &self.masquerade {
            None => (self.ip_masq != Some(false), None),
            Some(Value::Bool(false)) if self.ip_masq == Some(true) => {
                return Err(Error::config("ipMasq", "is true, and masquerade is false"));
            }
            Some(Value::Bool(false)) => (false, None),
            Some(_) if self.ip_masq == Some(false) => {
                return Err(Error::config("ipMasq", "is false, and masquerade says otherwise"));
            }
            Some(Value::Bool(true)) => (true, None),
            Some(Value::Object(keys)) => (true, Some(keys)),
            Some(other) => {
                return Err(Error::config(
                    "masquerade",
                    format!(
                        "{other} is neither true nor false nor {{\"nonMasqueradeCIDRs\": […]}}"
                    ),
                ));
            }
        };
        let mut masquerade = Masquerade {
            on,
            non_masquerade: Vec::new(),
            link_local: false,
            link_local_ipv6: false,
        };
        if on {
            let named: RawMasquerade = match keys {
                None => RawMasquerade::default(),
                Some(keys) => {
                    warn_of_unknown(&json!(keys), MASQUERADE_KEYS, "masquerade.");
                    serde_path_to_error::deserialize(&json!(keys)).map_err(|error| {
                        Error::config(format!("masquerade.{}", error.path()), error.inner())
                    })?
                }
            };
            masquerade.non_masquerade = cidrs::parse_all(&named.cidrs)
                .map_err(|wrong| Error::config("masquerade.nonMasqueradeCIDRs", wrong))?;
            masquerade.link_local = named.link_local;
            masquerade.link_local_ipv6 = named.link_local_ipv6;
        }
        Ok(masquerade)
    }

    /// What the runtime asks for by a capability, whatever its spelling.
    fn capability(&self, name: &str) -> Option<&Value> {
        self.runtime_config.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The addresses that are wanted for the pod: by the runtime's capability `ips`, and by host-local's `args.cni.ips`.
    pub(super) fn wanted_addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let by_args = self.args.as_ref().and_then(|args| args.pointer("/cni/ips"));
        let lists = [("runtimeConfig.ips", self.capability("ips")), ("args.cni.ips", by_args)];
        let mut addresses = Vec::new();
        for (key, list) in lists {
            for text in list.and_then(Value::as_array).into_iter().flatten() {
                let wrong = || Error::config(key, format!("{text} is not an address"));
                let wanted = text.as_str().and_then(address).ok_or_else(wrong)?;
                if !addresses.contains(&wanted) {
                    addresses.push(wanted);
                }
            }
        }
        Ok(addresses)
    }

    /// The HostPorts that the runtime wants for the pod, by `portMappings`.
    pub(super) fn host_ports(&self) -> Result<Vec<host_ports::Wanted>, Error> {
        host_ports::read(self.capability("portMappings").unwrap_or(&Value::Null))
    }

    /// The MAC that is wanted for the pod: by the runtime's capability `mac`, or else by `args.cni.mac`, as the reference
    /// bridge has them (plugins/main/bridge/bridge.go, `loadNetConf`).
    pub(super) fn wanted_mac(&self) -> Result<Option<Mac>, Error> {
        let by_args = self.args.as_ref().and_then(|args| args.pointer("/cni/mac"));
        let wishes = [("runtimeConfig.mac", self.capability("mac")), ("args.cni.mac", by_args)];
        for (key, wish) in wishes {
            if let Some(text) = wish.and_then(Value::as_str).filter(|text| !text.is_empty()) {
                let wrong = || Error::config(key, format!("{text:?} is not a pod's MAC"));
                return mac(text).map(Some).ok_or_else(wrong);
            }
        }
        Ok(None)
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
                "bandwidth" => ("runtimeConfig.bandwidth", NO_BANDWIDTH),
                "ipranges" => ("runtimeConfig.ipRanges", "name the ranges in ipam.ranges"),
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

    /// The range that stands in `ipam` itself; host-local's older form.
    fn single(&self) -> Result<Option<Vec<RawRange>>, Error> {
        let (range_start, range_end, gateway) = (self.range_start, self.range_end, self.gateway);
        match self.subnet {
            Some(subnet) => Ok(Some(vec![RawRange { subnet, range_start, range_end, gateway }])),
            None if range_start.or(range_end).or(gateway).is_some() => Err(Error::config(
                "ipam.subnet",
                "is missing beside rangeStart, rangeEnd or gateway",
            )),
            None => Ok(None),
        }
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
        let raw: Vec<Vec<RawRange>> =
            self.single()?.into_iter().chain(self.ranges.iter().cloned()).collect();
        if raw.iter().all(Vec::is_empty) {
            return Err(Error::config("ipam.ranges", "names no range"));
        }
        // One that is empty was meant for something: host-local refuses it too.
        if raw.iter().any(Vec::is_empty) {
            return Err(Error::config("ipam.ranges", "has a set that names no range"));
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

/// An address, with or without a prefix, which is the range's anyway.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<IpNetwork>().ok().map(|network| network.ip()))
}

/// A MAC that one interface can have: unicast, and not zero.
pub(super) fn mac(text: &str) -> Option<Mac> {
    let octets: Vec<_> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    Mac::try_from(octets).ok().filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6])
}

/// Whether a key asks for something.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

fn warn_of_unknown(json: &Value, known: &[&str], prefix: &str) {
    for key in json.as_object().into_iter().flat_map(serde_json::Map::keys) {
        if !known.contains(&key.as_str()) {
            let nearest = known.iter().min_by_key(|known| distance(known, key)).unwrap_or(&"");
            warn(format_args!(
                "{prefix}{key} is not a key of netplug's; the nearest is {prefix}{nearest}"
            ));
        }
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
        for entries in [0, (1 << 24) + 1, u32::MAX] {
            assert!(wrong(json!({"flowCache": entries})).starts_with("flowCache: "), "{entries}");
        }
        assert!(Config::read(&json!({"flowCache": 1 << 24})).is_ok());
        assert!(wrong(json!({"ipMasq": false, "masquerade": true})).contains("ipMasq"));
        assert!(wrong(json!({"masquerade": "yes"})).starts_with("masquerade: \"yes\" is neither"));
        assert!(
            wrong(json!({"masquerade": {"nonMasqueradeCIDRs": ["ten"]}}))
                .contains("\"ten\" is neither a CIDR nor")
        );
        let route = json!({"ipam": {"type": "host-local", "subnet": "10.0.0.0/24",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.5/16"}]}});
        assert_eq!(
            wrong(route),
            "ipam.routes: 10.9.0.5/16 has host bits set; the network is 10.9.0.0/16"
        );
        for ranges in
            [json!([[{"subnet": "10.0.0.0/24"}], []]), json!([[], [{"subnet": "10.0.0.0/24"}]])]
        {
            let empty = json!({"ipam": {"type": "host-local", "ranges": ranges}});
            assert!(wrong(empty).starts_with("ipam.ranges: "), "{ranges}");
        }
        for name in ["cbr%d", "..", "a\tb"] {
            assert!(wrong(json!({"bridge": name})).starts_with("bridge: "), "{name}");
        }
        assert!(wrong(json!({"vlan": 100})).starts_with("vlan: 100 is not supported"));
        assert!(wrong(json!({"macspoofchk": true, "sourceGuard": false})).contains("macspoofchk"));
        assert!(Config::read(&json!({"vlan": 0, "promiscMode": true, "mtu": 0})).is_ok());
    }

    #[test]
    fn masquerade_is_a_switch_or_a_list() {
        let read = |config| Config::read(&config).unwrap().masquerade().unwrap();
        let is = |on, cidrs: &[&str]| Masquerade {
            on,
            non_masquerade: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            link_local: false,
            link_local_ipv6: false,
        };
        assert_eq!(read(json!({})), is(true, &["10.0.0.0/8", "fc00::/7"]));
        assert_eq!(read(json!({"ipMasq": false})), is(false, &[]));
        assert_eq!(read(json!({"masquerade": false})), is(false, &[]));
        let one = json!({"ipMasq": true, "masquerade": {"nonMasqueradeCIDRs": ["0.0.0.0/0"]}});
        assert_eq!(read(one), is(true, &["0.0.0.0/0"]));
        assert_eq!(read(json!({"masquerade": {"nonMasqueradeCIDRs": []}})), is(true, &[]));
        let options = read(json!({"masquerade": {"masqLinkLocal": true}}));
        assert_eq!((options.link_local, options.link_local_ipv6), (true, false));
        assert_eq!(options.non_masquerade, read(json!({})).non_masquerade);
    }

    #[test]
    fn a_runtime_may_want_addresses_and_a_mac() {
        let config = Config::read(&json!({"runtimeConfig": {
            "IPs": ["10.1.2.9/24", "fd00::9"], "mac": "02:00:00:00:00:09"}}))
        .unwrap();
        assert_eq!(
            config.wanted_addresses().unwrap(),
            ["10.1.2.9", "fd00::9"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        assert_eq!(config.wanted_mac().unwrap(), Some([2, 0, 0, 0, 0, 9]));
        let by_args = json!({"args": {"cni": {"mac": "02:00:00:00:00:08"}}});
        let wanted = |config: &Value| Config::read(config).unwrap().wanted_mac();
        assert_eq!(wanted(&by_args).unwrap(), Some([2, 0, 0, 0, 0, 8]));
        let mut both = by_args.clone();
        both["runtimeConfig"]["mac"] = json!("02:00:00:00:00:09");
        assert_eq!(wanted(&both).unwrap(), Some([2, 0, 0, 0, 0, 9]));
        let bad = wanted(&json!({"args": {"cni": {"mac": "03:00:00:00:00:08"}}})).unwrap_err();
        assert!(bad.to_string().starts_with("args.cni.mac: "), "{bad}");
        assert_eq!(mac("03:00:00:00:00:09"), None);
        assert_eq!(mac("02:00:00:00:09"), None);
    }

    #[test]
    fn what_a_pod_would_come_up_without_is_refused_in_either_spelling() {
        for key in ["bandwidth", "Bandwidth"] {
            let config = json!({"runtimeConfig": {key: {"ingressRate": 1_000}}});
            assert!(wrong(config).contains("does not limit bandwidth"));
        }
        assert!(
            Config::read(
                &json!({"runtimeConfig": {"bandwidth": {}, "dns": {"Servers": ["10.0.0.10"]}}})
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
        assert_eq!((config.mtu(), config.ip_masq), (Some(1400), Some(true)));
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
