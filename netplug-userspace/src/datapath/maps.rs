//! The pinned maps, typed. The only place where map names meet map types.

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use netplug_common::ip::{IpVersion, V4, V6};
use netplug_common::maps::config::Config;
use netplug_common::maps::counters::Count;
use netplug_common::maps::endpoint::EndpointEntry;
use netplug_common::maps::flow::Flow;
use netplug_common::maps::host_port::{HostPort, Target};
use netplug_common::maps::nat::Mapping;
use netplug_common::maps::port::PodPort;
use netplug_common::maps::uplink::UplinkEntry;
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::Tuple;

use super::{Error, pin};

/// Every map that is pinned, by name.
pub(super) const NAMES: &[&str] = &[
    "CONFIG",
    "PORTS",
    "UPLINKS",
    "COUNTERS",
    "FLOW_STATE",
    "NAT_STATE",
    "ENDPOINTS4",
    "ENDPOINTS6",
    "NON_MASQ4",
    "NON_MASQ6",
    "FLOWS4",
    "FLOWS6",
    "VISITS4",
    "VISITS6",
    "NAT_OUT4",
    "NAT_OUT6",
    "NAT_IN4",
    "NAT_IN6",
    "HOSTPORTS4",
    "HOSTPORTS6",
    "LOCALS4",
    "LOCALS6",
    "SOCKETS4",
    "SOCKETS6",
    "FRAGMENTS4",
    "FRAGMENTS6",
    "HELD",
];

/// A hash of ours.
pub(super) type Table<K, V> = HashMap<MapData, K, V>;

/// The maps that userspace writes on every ADD and DEL.
pub(super) struct Maps;

/// What differs between the families on this side: names, and the form of a prefix.
pub(super) trait Family: IpVersion {
    const ENDPOINTS: &'static str;
    const NON_MASQUERADE: &'static str;
    const FLOWS: &'static str;
    const VISITS: &'static str;
    const NAT_OUT: &'static str;
    const NAT_IN: &'static str;
    const HOST_PORTS: &'static str;
    const LOCALS: &'static str;
    /// An address as prefixes have it.
    type Octets: Pod + Copy + Eq;
}

impl Family for V4 {
    const ENDPOINTS: &'static str = "ENDPOINTS4";
    const NON_MASQUERADE: &'static str = "NON_MASQ4";
    const FLOWS: &'static str = "FLOWS4";
    const VISITS: &'static str = "VISITS4";
    const NAT_OUT: &'static str = "NAT_OUT4";
    const NAT_IN: &'static str = "NAT_IN4";
    const HOST_PORTS: &'static str = "HOSTPORTS4";
    const LOCALS: &'static str = "LOCALS4";
    type Octets = [u8; 4];
}

impl Family for V6 {
    const ENDPOINTS: &'static str = "ENDPOINTS6";
    const NON_MASQUERADE: &'static str = "NON_MASQ6";
    const FLOWS: &'static str = "FLOWS6";
    const VISITS: &'static str = "VISITS6";
    const NAT_OUT: &'static str = "NAT_OUT6";
    const NAT_IN: &'static str = "NAT_IN6";
    const HOST_PORTS: &'static str = "HOSTPORTS6";
    const LOCALS: &'static str = "LOCALS6";
    type Octets = [u8; 16];
}

/// Those that nobody can make up once they are lost: which pods there are, and how the node is set.
const IRREPLACEABLE: [&str; 4] = ["CONFIG", "PORTS", "ENDPOINTS4", "ENDPOINTS6"];

/// Whether one is there, at least.
pub(super) fn is_any_pinned() -> bool {
    NAMES.iter().any(|name| pin::path(name).exists())
}

/// One that is lost while others are there, and cannot be made up.
pub(super) fn torn() -> Option<&'static str> {
    if !is_any_pinned() {
        return None;
    }
    IRREPLACEABLE.into_iter().find(|name| !pin::path(name).exists())
}

fn open(map: &'static str) -> Result<Map, Error> {
    let path = pin::path(map);
    MapData::from_pin(&path).and_then(Map::from_map_data).map_err(|source| {
        if path.exists() { Error::Map { verb: "open", map, source } } else { Error::Lost { map } }
    })
}

/// What is left, where a map's pin may be lost.
pub(super) fn left<M>(opened: Result<M, Error>) -> Result<Option<M>, Error> {
    match opened {
        Err(Error::Lost { .. }) => Ok(None),
        opened => opened.map(Some),
    }
}

/// The entries of what is left.
pub(super) fn entries_left<K: Pod, V: Pod>(
    opened: Result<Table<K, V>, Error>,
    map: &'static str,
) -> Result<Vec<(K, V)>, Error> {
    left(opened)?.map_or_else(|| Ok(Vec::new()), |table| entries(&table, map))
}

/// A size that differs is another layout; all else is the kernel's word.
fn typed<M>(map: &'static str, result: Result<M, MapError>) -> Result<M, Error> {
    result.map_err(|source| match source {
        MapError::InvalidKeySize { .. }
        | MapError::InvalidValueSize { .. }
        | MapError::InvalidMapType { .. } => Error::Layout { map },
        source => Error::Map { verb: "open", map, source },
    })
}

fn table<K: Pod, V: Pod>(map: &'static str) -> Result<Table<K, V>, Error> {
    typed(map, open(map)?.try_into())
}

/// Refuses pinned maps of another shape under this layout's name: loading takes any on, unseen.
pub(super) fn refuse_other_shapes() -> Result<(), Error> {
    fn of_family<V: Family>() -> Result<(), Error>
    where
        V::Address: Pod,
    {
        let is_there = |name: &&str| pin::path(name).exists();
        if is_there(&V::ENDPOINTS) {
            Maps.endpoints::<V>()?;
        }
        if is_there(&V::NON_MASQUERADE) {
            Maps.non_masquerade::<V>()?;
        }
        if is_there(&V::FLOWS) {
            Maps.flows::<V>()?;
        }
        if is_there(&V::VISITS) {
            Maps.visits::<V>()?;
        }
        if is_there(&V::NAT_OUT) {
            Maps.nat_out::<V>()?;
        }
        if is_there(&V::NAT_IN) {
            Maps.nat_in::<V>()?;
        }
        if is_there(&V::HOST_PORTS) {
            Maps.host_ports::<V>()?;
        }
        Ok(())
    }
    let is_there = |name: &str| pin::path(name).exists();
    if is_there("CONFIG") {
        Maps.config()?;
    }
    if is_there("PORTS") {
        Maps.ports()?;
    }
    if is_there("UPLINKS") {
        Maps.uplinks()?;
    }
    if is_there("COUNTERS") {
        Maps.counters()?;
    }
    of_family::<V4>()?;
    of_family::<V6>()
}

impl Maps {
    /// Opens what every caller needs, so that a foreign layout is found before anything is written.
    pub(super) fn open() -> Result<Self, Error> {
        let maps = Self;
        maps.config()?;
        Ok(maps)
    }

    pub(super) fn config(&self) -> Result<Array<MapData, Config>, Error> {
        typed("CONFIG", open("CONFIG")?.try_into())
    }

    pub(super) fn ports(&self) -> Result<Table<u32, PodPort>, Error> {
        table("PORTS")
    }

    pub(super) fn uplinks(&self) -> Result<Table<u32, UplinkEntry>, Error> {
        table("UPLINKS")
    }

    pub(super) fn counters(&self) -> Result<PerCpuArray<MapData, Count>, Error> {
        typed("COUNTERS", open("COUNTERS")?.try_into())
    }

    pub(super) fn endpoints<V: Family>(&self) -> Result<Table<V::Address, EndpointEntry>, Error>
    where
        V::Address: Pod,
    {
        table(V::ENDPOINTS)
    }

    pub(super) fn non_masquerade<V: Family>(
        &self,
    ) -> Result<LpmTrie<MapData, V::Octets, u32>, Error> {
        typed(V::NON_MASQUERADE, open(V::NON_MASQUERADE)?.try_into())
    }

    pub(super) fn flows<V: Family>(&self) -> Result<Table<Tuple<V>, Flow<V>>, Error> {
        table(V::FLOWS)
    }

    pub(super) fn visits<V: Family>(&self) -> Result<Table<u32, Visit<V>>, Error> {
        table(V::VISITS)
    }

    pub(super) fn nat_out<V: Family>(&self) -> Result<Table<Tuple<V>, Mapping<V>>, Error> {
        table(V::NAT_OUT)
    }

    pub(super) fn host_ports<V: Family>(&self) -> Result<Table<HostPort<V>, Target<V>>, Error> {
        table(V::HOST_PORTS)
    }

    pub(super) fn locals<V: Family>(&self) -> Result<Table<V::Address, u32>, Error>
    where
        V::Address: Pod,
    {
        table(V::LOCALS)
    }

    pub(super) fn nat_in<V: Family>(&self) -> Result<Table<Tuple<V>, Mapping<V>>, Error> {
        table(V::NAT_IN)
    }
}

/// Keys of a table that other CPUs change while it is read: what vanishes meanwhile is left out.
pub(super) fn entries<K: Pod, V: Pod>(
    table: &Table<K, V>,
    map: &'static str,
) -> Result<Vec<(K, V)>, Error> {
    let mut entries = Vec::new();
    for key in table.keys() {
        let key = key.map_err(|source| Error::Map { verb: "read", map, source })?;
        match table.get(&key, 0) {
            Ok(value) => entries.push((key, value)),
            Err(MapError::KeyNotFound) => {}
            Err(source) => return Err(Error::Map { verb: "read", map, source }),
        }
    }
    Ok(entries)
}

/// Removes a key; content if it is gone.
pub(super) fn remove<K: Pod, V: Pod>(
    table: &mut Table<K, V>,
    key: &K,
    map: &'static str,
) -> Result<(), Error> {
    match table.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(source) => Err(Error::Map { verb: "remove an entry of", map, source }),
    }
}
