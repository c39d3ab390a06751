//! Maps and programs are readable by name, with tools that know nothing of netplug.

use netplug_common::maps::LAYOUT;
use netplug_tests::cast::Family::{V4, V6};
use netplug_tests::cast::OUTSIDE;
use netplug_tests::namespace::Namespace;
use serde_json::Value;

use crate::scene::{PORT, Scene, Steering};

const PROGRAMS: [&str; 4] = ["from_pod", "to_pod", "from_uplink", "to_uplink"];

#[test]
fn bpftool_shows_the_programs_by_name() {
    let scene = Scene::steered(Steering::Learn);
    let shown = scene.node.namespace().run("bpftool -j prog show");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let names: Vec<_> =
        shown.as_array().unwrap().iter().filter_map(|program| program["name"].as_str()).collect();
    for program in PROGRAMS {
        assert!(names.contains(&program), "{program} is not among {names:?}");
    }
}

/// The fields by which a reader tells what an entry is about, of keys and values, by a map's name without its family. Numbers
/// and prefixes are as good as named by their map.
const FIELDS: [(&str, &str, &str); 17] = [
    ("CONFIG", "", "epoch"),
    ("PORTS", "", "pod_mac"),
    ("UPLINKS", "", "address4"),
    ("COUNTERS", "", "packets"),
    ("FLOW_STATE", "", "taken_until"),
    ("NAT_STATE", "", "sweep_after"),
    ("ENDPOINTS", "octets", "ifindex"),
    ("NON_MASQ", "prefix_len", ""),
    ("FLOWS", "source_port", "leaves_by"),
    ("VISITS", "", "entered_by"),
    ("NAT_OUT", "source_port", "expires_at"),
    ("NAT_IN", "source_port", "expires_at"),
    ("HOSTPORTS", "port", "owner"),
    ("LOCALS", "octets", ""),
    ("SOCKETS", "cookie", "port"),
    ("FRAGMENTS", "source", "state"),
    ("HELD", "", "frame"),
];

#[test]
fn bpftool_dumps_every_map_with_named_fields() {
    let scene = Scene::steered(Steering::Learn);
    scene.node.outside().listen(PORT);
    for ip in [V4, V6] {
        scene.client.dial(scene.service(ip)).tcp().unwrap().ask_times(20).unwrap();
        scene.client.dial((OUTSIDE.ip(ip), PORT).into()).udp().unwrap().ask_times(20).unwrap();
    }
    let node = scene.node.namespace();
    let folder = format!("/sys/fs/bpf/netplug/v{LAYOUT}");
    let pins = node.run(&format!("ls {folder}"));
    // Programs and links, which are pinned beside the maps, have small letters.
    let is_map = |pin: &&str| pin.starts_with(|first: char| first.is_ascii_uppercase());
    let mut missing = FIELDS.map(|(map, ..)| map).to_vec();
    for pin in pins.lines().filter(is_map) {
        let map = pin.trim_end_matches(['4', '6']);
        let fields = FIELDS.iter().find(|(of, ..)| *of == map);
        let (_, of_key, of_value) = fields.unwrap_or_else(|| panic!("what are {pin}'s fields?"));
        missing.retain(|of| *of != map);
        let at = format!("pinned {folder}/{pin}");
        let shown = bpftool(node, &format!("map show {at}"));
        assert!(shown["btf_id"].as_u64().is_some_and(|id| id > 0), "{pin} has no BTF: {shown}");
        let dump = || bpftool(node, &format!("map dump {at}"));
        let mut entries = dump();
        if entries.as_array().is_some_and(Vec::is_empty) {
            // None came by itself: one of zeros has the same fields.
            let zeros = |size: &str| "0 ".repeat(shown[size].as_u64().unwrap() as usize);
            let (key, value) = (zeros("bytes_key"), zeros("bytes_value"));
            node.run(&format!("bpftool map update {at} key {key} value {value}"));
            entries = dump();
        }
        let entry = &entries[0]["formatted"];
        let value = if entry["values"].is_array() { &entry["values"][0] } else { entry };
        for (what, found, field) in
            [("key", &entry["key"], of_key), ("value", &value["value"], of_value)]
        {
            assert!(
                if field.is_empty() { !found.is_null() } else { !found[field].is_null() },
                "{pin}: no {field:?} in the {what} {found}"
            );
        }
    }
    assert!(missing.is_empty(), "not among {pins}: {missing:?}");
}

/// What `bpftool -j` prints.
#[track_caller]
fn bpftool(node: &Namespace, line: &str) -> Value {
    let printed = node.run(&format!("bpftool -j {line}"));
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{line}: {error}: {printed}"))
}
