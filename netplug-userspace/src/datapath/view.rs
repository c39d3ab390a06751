//! What the maps hold, in the words of people: for `netplug flows`, `nat` and `counters`.

use std::net::{IpAddr, SocketAddr};

use netplug_common::counter::Counter;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::flow::{DIRECT, SAME_BRIDGE, TO_UPLINK, UNTOUCHED};
use netplug_common::maps::nat::{HOST_PORT, IDENTITY, MOVED};
use netplug_common::tuple::{Port, Tuple};
use serde::Serialize;

use super::maps::{Family, entries};
use super::{Datapath, Error};

/// A cached flow.
#[derive(Debug, Clone, Serialize)]
pub struct FlowView {
    /// IANA protocol number.
    pub protocol: u8,
    /// Who speaks, as the packet enters.
    pub source: SocketAddr,
    /// To whom, as the packet enters.
    pub destination: SocketAddr,
    /// The speaker, as the packet leaves.
    pub left_source: SocketAddr,
    /// The other, as the packet leaves.
    pub left_destination: SocketAddr,
    /// Interface index by which it enters.
    pub entered_by: u32,
    /// Interface index by which it leaves.
    pub leaves_by: u32,
    /// `untouched`, `translated` or `direct`.
    pub kind: &'static str,
    /// `bridge`, `pod` or `uplink`.
    pub way: &'static str,
    /// Whether a packet would follow it: it is of this epoch. (It may be due to ask the host again.)
    pub live: bool,
}

/// A mapping, seen from the pod.
#[derive(Debug, Clone, Serialize)]
pub struct MappingView {
    /// IANA protocol number.
    pub protocol: u8,
    /// The pod's address and port (or echo identifier).
    pub source: SocketAddr,
    /// With whom it speaks.
    pub destination: SocketAddr,
    /// The address and port that the outside sees.
    pub seen_as: SocketAddr,
    /// `translated`; `identity` for a connection that came in from outside to the pod's address; `host port` for one that came in
    /// to the node's; `node` for one of the node's own, whose port a pod had already.
    pub kind: &'static str,
    /// Whether the answers' half is there; a missing one heals by itself.
    pub whole: bool,
}

/// A counter over all CPUs.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// Its name.
    pub name: &'static str,
    /// Packets; a GSO packet counts as one.
    pub packets: u64,
    /// Their bytes, with Ethernet headers.
    pub bytes: u64,
    /// Whether these packets were dropped.
    pub drop: bool,
    /// What they met.
    pub meaning: &'static str,
}

/// How full the maps are.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Totals {
    /// Cached flows, void ones too.
    pub flows: usize,
    /// Mappings.
    pub mappings: usize,
}

trait IntoIp: Copy {
    fn ip(self) -> IpAddr;
}

impl IntoIp for netplug_common::ip::Ipv4 {
    fn ip(self) -> IpAddr {
        std::net::Ipv4Addr::from(self).into()
    }
}

impl IntoIp for netplug_common::ip::Ipv6 {
    fn ip(self) -> IpAddr {
        std::net::Ipv6Addr::from(self).into()
    }
}

fn socket(address: impl IntoIp, port: Port) -> SocketAddr {
    SocketAddr::new(address.ip(), port.get())
}

fn ends<V: Family>(tuple: &Tuple<V>) -> (SocketAddr, SocketAddr)
where
    V::Address: IntoIp,
{
    (socket(tuple.source, tuple.source_port), socket(tuple.destination, tuple.destination_port))
}

impl Datapath {
    /// Every cached flow.
    pub fn flows(&self) -> Result<Vec<FlowView>, Error> {
        let mut flows = self.flows_of::<V4>()?;
        flows.extend(self.flows_of::<V6>()?);
        Ok(flows)
    }

    fn flows_of<V: Family>(&self) -> Result<Vec<FlowView>, Error>
    where
        V::Address: IntoIp,
    {
        let epoch = self.config()?.epoch;
        let flows = entries(&self.maps.flows::<V>()?, V::FLOWS)?;
        Ok(flows
            .into_iter()
            // Not those that are void, and only hold a tuple.
            .filter(|(_, flow)| flow.entered_by != 0)
            .map(|(tuple, flow)| {
                let (source, destination) = ends(&tuple);
                let (left_source, left_destination) = ends(&flow.left);
                FlowView {
                    protocol: tuple.protocol,
                    source,
                    destination,
                    left_source,
                    left_destination,
                    entered_by: flow.entered_by,
                    leaves_by: flow.leaves_by,
                    kind: match (flow.flags & DIRECT != 0, flow.flags & UNTOUCHED != 0) {
                        (true, _) => "direct",
                        (false, true) => "untouched",
                        (false, false) => "translated",
                    },
                    way: match (flow.flags & TO_UPLINK != 0, flow.flags & SAME_BRIDGE != 0) {
                        (true, _) => "uplink",
                        (false, true) => "bridge",
                        (false, false) => "pod",
                    },
                    live: flow.epoch == epoch,
                }
            })
            .collect())
    }

    /// Every mapping.
    pub fn mappings(&self) -> Result<Vec<MappingView>, Error> {
        let mut mappings = self.mappings_of::<V4>()?;
        mappings.extend(self.mappings_of::<V6>()?);
        Ok(mappings)
    }

    fn mappings_of<V: Family>(&self) -> Result<Vec<MappingView>, Error>
    where
        V::Address: IntoIp,
    {
        let nat_in = self.maps.nat_in::<V>()?;
        let mappings = entries(&self.maps.nat_out::<V>()?, V::NAT_OUT)?;
        Ok(mappings
            .into_iter()
            .map(|(tuple, mapping)| {
                let (source, destination) = ends(&tuple);
                let left = Tuple { source: mapping.address, source_port: mapping.port, ..tuple };
                MappingView {
                    protocol: tuple.protocol,
                    source,
                    destination,
                    seen_as: socket(mapping.address, mapping.port),
                    kind: match mapping.kind {
                        IDENTITY => "identity",
                        HOST_PORT => "host port",
                        MOVED => "node",
                        _ => "translated",
                    },
                    whole: nat_in.get(&left.reversed(), 0).is_ok(),
                }
            })
            .collect())
    }

    /// Every counter, summed over CPUs.
    pub fn counters(&self) -> Result<Vec<Count>, Error> {
        let map = self.maps.counters()?;
        Counter::ALL
            .iter()
            .map(|counter| {
                let shares = map.get(&(*counter as u32), 0).map_err(|source| Error::Map {
                    verb: "read",
                    map: "COUNTERS",
                    source,
                })?;
                Ok(Count {
                    name: counter.name(),
                    packets: shares.iter().map(|share| share.packets).sum(),
                    bytes: shares.iter().map(|share| share.bytes).sum(),
                    drop: counter.is_drop(),
                    meaning: counter.meaning(),
                })
            })
            .collect()
    }

    /// How many flows and mappings there are.
    pub fn totals(&self) -> Result<Totals, Error> {
        fn count<V: Family>(datapath: &Datapath) -> Result<Totals, Error> {
            Ok(Totals {
                flows: entries(&datapath.maps.flows::<V>()?, V::FLOWS)?.len(),
                mappings: entries(&datapath.maps.nat_out::<V>()?, V::NAT_OUT)?.len(),
            })
        }
        let (v4, v6) = (count::<V4>(self)?, count::<V6>(self)?);
        Ok(Totals { flows: v4.flows + v6.flows, mappings: v4.mappings + v6.mappings })
    }
}
