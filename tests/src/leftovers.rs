//! What pods that are gone have left with the datapath and the kernel, beside what an [`crate::ledger::Inventory`] sees.

use std::path::PathBuf;

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use netplug_common::ip::{IpVersion, Ipv4, Ipv6, V4, V6};
use netplug_common::maps::LAYOUT;
use netplug_common::maps::config::Config;
use netplug_common::maps::endpoint::EndpointEntry;
use netplug_common::maps::flow::Flow;
use netplug_common::maps::host_port::{HostPort, Target};
use netplug_common::maps::nat::{HOST, MOVED, Mapping};
use netplug_common::maps::port::PodPort;
use netplug_common::maps::uplink::UplinkEntry;
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::Tuple;

use crate::namespace::Namespace;

/// Where this layout's pins are.
fn pins() -> PathBuf {
    format!("/sys/fs/bpf/netplug/v{LAYOUT}").into()
}

/// Entries of the maps that are pinned, links of endpoints, permanent neighbours and static FDB entries, each as a line of
/// text: on a node without pods there are none, be netplug loaded or not.
#[must_use]
pub fn of_pods(node: &Namespace) -> Vec<String> {
    let mut found = node.enter(|| {
        let mut found = entries::<u32, PodPort>("PORTS", |_| true);
        found.extend(of_family::<V4, Ipv4>('4'));
        found.extend(of_family::<V6, Ipv6>('6'));
        for pin in std::fs::read_dir(pins()).into_iter().flatten().flatten() {
            let name = pin.file_name().to_string_lossy().into_owned();
            if name.starts_with("link-") && name.ends_with("_pod") {
                found.push(format!("the pin {name}"));
            }
        }
        found
    });
    let neighbours = node.run("ip neigh show nud permanent");
    found.extend(neighbours.lines().map(|line| format!("the neighbour {line}")));
    let fdb = node.run("bridge fdb show");
    let is_static = |line: &&str| line.split_whitespace().any(|word| word == "static");
    found.extend(fdb.lines().filter(is_static).map(|line| format!("the FDB entry {line}")));
    found
}

fn of_family<V: IpVersion<Address = A>, A: Pod + std::fmt::Debug>(family: char) -> Vec<String> {
    let map = |name: &str| format!("{name}{family}");
    let mut found = entries::<A, EndpointEntry>(&map("ENDPOINTS"), |_| true);
    found.extend(entries::<Tuple<V>, Flow<V>>(&map("FLOWS"), |_| true));
    found.extend(entries::<u32, Visit<V>>(&map("VISITS"), |visit| !is_of_a_straggler(visit)));
    found.extend(entries::<Tuple<V>, Mapping<V>>(&map("NAT_OUT"), |_| true));
    // The host's own connections go on without pods.
    let is_pods = |mapping: &Mapping<V>| ![HOST, MOVED].contains(&mapping.kind);
    found.extend(entries::<Tuple<V>, Mapping<V>>(&map("NAT_IN"), is_pods));
    found.extend(entries::<HostPort<V>, Target<V>>(&map("HOSTPORTS"), |_| true));
    found
}

/// The outside may call whom it likes, and its last acknowledgement comes when the pod is gone: noted when the epoch of the
/// pod had ended, by an uplink.
fn is_of_a_straggler<V: IpVersion>(visit: &Visit<V>) -> bool {
    let config: Array<_, Config> = open("CONFIG").expect("it stands where VISITS does");
    let uplinks: HashMap<_, u32, UplinkEntry> =
        open("UPLINKS").expect("it stands where VISITS does");
    let epoch = config.get(&0, 0).expect("it has one entry").epoch;
    visit.epoch == epoch && uplinks.get(&visit.entered_by, 0).is_ok()
}

/// The map that is pinned as `name`.
fn open<M: TryFrom<Map, Error = MapError>>(name: &str) -> Option<M> {
    let path = pins().join(name);
    if !path.exists() {
        return None;
    }
    let opened = MapData::from_pin(&path).and_then(Map::from_map_data).and_then(M::try_from);
    Some(opened.unwrap_or_else(|error| panic!("{name} is not what it should be: {error}")))
}

/// The entries of a map that count; none where it is not pinned.
fn entries<K: Pod + std::fmt::Debug, V: Pod>(
    name: &str,
    counts: impl Fn(&V) -> bool,
) -> Vec<String> {
    let Some(map) = open::<HashMap<MapData, K, V>>(name) else { return Vec::new() };
    let entries = map.iter().filter_map(Result::ok);
    entries
        .filter(|(_, value)| counts(value))
        .map(|(key, _)| format!("in {name}: {key:?}"))
        .collect()
}
