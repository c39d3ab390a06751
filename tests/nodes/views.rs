//! Maps and programs are readable by name, with tools that know nothing of netplug.

use netplug_common::maps::LAYOUT;
use netplug_tests::cast::Family::{V4, V6};
use netplug_tests::cast::OUTSIDE;
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
    let mut seen = Vec::new();
    for pin in node.run(&format!("ls {folder}")).lines() {
        // Programs and links are pinned beside the maps.
        let dumped = node.try_feed(&format!("bpftool -j map dump pinned {folder}/{pin}"), "");
        let Ok(Value::Array(entries)) = serde_json::from_slice(&dumped.stdout) else { continue };
        seen.push(pin.to_owned());
        let Some(entry) = entries.first() else { continue };
        assert!(entry["formatted"].is_object(), "{pin} has no BTF: {entry}");
        let value = &entry["formatted"]["value"];
        let value = if value.is_null() { &entry["formatted"]["values"][0]["value"] } else { value };
        // Prefix sets have a number for a value; all else is a struct with named fields.
        assert!(value.is_object() || pin.starts_with("NON_MASQ"), "{pin}: {value}");
    }
    for map in [
        "CONFIG",
        "PORTS",
        "ENDPOINTS4",
        "FLOWS4",
        "FLOWS6",
        "VISITS4",
        "NAT_OUT4",
        "NAT_IN6",
        "COUNTERS",
    ] {
        assert!(seen.iter().any(|pin| pin == map), "{map} is not among {seen:?}");
    }
}
