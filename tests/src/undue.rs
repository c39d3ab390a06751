//! Patience: cached flows that ask the host no more by their age, so that only the epoch can have them ask.

use aya::maps::{HashMap, Map, MapData};
use netplug_common::ip::{IpVersion, V4, V6};
use netplug_common::maps::LAYOUT;
use netplug_common::maps::flow::{Flow, NEW};
use netplug_common::tuple::Tuple;

use crate::namespace::Namespace;

/// Has none of the flows that are cached by now ask for longer than any test runs. Nobody may send meanwhile.
#[track_caller]
pub fn never_due(node: &Namespace) {
    let flows = node.enter(|| put_off::<V4>('4') + put_off::<V6>('6'));
    assert!(flows > 0, "no flow is cached");
}

fn put_off<V: IpVersion>(family: char) -> usize {
    let path = format!("/sys/fs/bpf/netplug/v{LAYOUT}/FLOWS{family}");
    let data =
        MapData::from_pin(&path).unwrap_or_else(|error| panic!("cannot open {path}: {error}"));
    let opened = Map::from_map_data(data).and_then(HashMap::<_, Tuple<V>, Flow<V>>::try_from);
    let mut map = opened.unwrap_or_else(|error| panic!("{path} is not what it should be: {error}"));
    let flows: Vec<_> = map.iter().filter_map(Result::ok).collect();
    for (tuple, mut flow) in flows.iter().copied() {
        flow.revisit_at += 1 << 32;
        flow.flags &= !NEW;
        map.insert(tuple, flow, 0).expect("what was cached fits");
    }
    flows.len()
}
