//! Forgetting: taking entries out of the pinned maps under the programs' hands.

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use netplug_common::ip::{IpVersion, V4, V6};
use netplug_common::maps::LAYOUT;
use netplug_common::maps::flow::Flow;
use netplug_common::maps::host_port::{HostPort, Target};
use netplug_common::maps::nat::Mapping;
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::Tuple;

use crate::namespace::Namespace;

/// What is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The flow caches.
    Flows,
    /// The packets in the host's hands.
    Visits,
    /// The mappings as pods' packets leave.
    NatOut,
    /// The mappings as answers come in.
    NatIn,
    /// The ports that lead to pods.
    HostPorts,
}

impl Table {
    /// Those that the programs themselves write.
    pub const ALL: [Self; 4] = [Self::Flows, Self::Visits, Self::NatOut, Self::NatIn];

    /// Removes about one in `one_in` of its entries, of both families; how many.
    pub fn forget(self, node: &Namespace, one_in: u32, seed: &mut u32) -> usize {
        node.enter(|| {
            self.forget_of::<V4>('4', one_in, seed) + self.forget_of::<V6>('6', one_in, seed)
        })
    }

    fn forget_of<V: IpVersion>(self, family: char, one_in: u32, seed: &mut u32) -> usize {
        match self {
            Self::Flows => forget::<Tuple<V>, Flow<V>>("FLOWS", family, one_in, seed),
            Self::Visits => forget::<u32, Visit<V>>("VISITS", family, one_in, seed),
            Self::NatOut => forget::<Tuple<V>, Mapping<V>>("NAT_OUT", family, one_in, seed),
            Self::HostPorts => forget::<HostPort<V>, Target<V>>("HOSTPORTS", family, one_in, seed),
            Self::NatIn => forget::<Tuple<V>, Mapping<V>>("NAT_IN", family, one_in, seed),
        }
    }
}

fn forget<K: Pod, V: Pod>(map: &str, family: char, one_in: u32, seed: &mut u32) -> usize {
    let path = format!("/sys/fs/bpf/netplug/v{LAYOUT}/{map}{family}");
    let data =
        MapData::from_pin(&path).unwrap_or_else(|error| panic!("cannot open {path}: {error}"));
    let opened = Map::from_map_data(data).and_then(HashMap::<_, K, V>::try_from);
    let mut map = opened.unwrap_or_else(|error| panic!("{path} is not what it should be: {error}"));
    // Keys that vanish while they are read are as good as removed by us.
    let keys: Vec<K> = map.keys().filter_map(Result::ok).collect();
    let chosen = keys.into_iter().filter(|_| next(seed).is_multiple_of(one_in));
    chosen.filter(|key| map.remove(key).is_ok()).count()
}

/// xorshift32 (Marsaglia): chance that can be had again from its seed.
fn next(seed: &mut u32) -> u32 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    *seed
}
