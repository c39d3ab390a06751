//! Endpoints: PORTS and ENDPOINTS, and the two programs on each host end.

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind::NotFound;
use std::net::IpAddr;

use aya::Pod;
use aya::maps::MapError;
use netplug_common::ip::{V4, V6};
use netplug_common::maps::endpoint::EndpointEntry;
use netplug_common::maps::nat::{HOST, MOVED, Mapping, SPARE};
use netplug_common::maps::port::{ADOPTED, PodPort, SOURCE_GUARD, unrouted};
use netplug_common::tuple::Tuple;

use super::attach::{How, attach, attached, detach_endpoint, promote, replace};
use super::maps::{Family, Table, entries, entries_left, left, remove};
use super::pin::Lock;
use super::{Attach, Datapath, Endpoint, Error, Owner, PodId, clsact};

/// `BPF_EXIST` (include/uapi/linux/bpf.h).
const BPF_EXIST: u64 = 2;

impl Datapath {
    /// Writes the endpoint's map entries (PORTS, ENDPOINTS4/6) and attaches `from_pod`, `to_pod` as `attach` says.
    /// Fails, changing nothing, if one of its addresses belongs to another live endpoint; forgets those that had its
    /// addresses or its interface index and are gone.
    pub fn register(&self, endpoint: &Endpoint) -> Result<(), Error> {
        // Who else asks for the same address looks before or after, never in between.
        let addresses = loop {
            let addresses = Lock::of_addresses()?;
            let gone = self.gone_before(endpoint)?;
            if gone.is_empty() {
                break addresses;
            }
            // Forgetting takes locks of its own, and its time.
            drop(addresses);
            for ifindex in gone {
                if let Some(owner) = self.owner_of(ifindex)?
                    && owner != endpoint.owner
                {
                    self.close_host_ports(owner)?;
                }
                self.forget(ifindex)?;
            }
        };
        let port = PodPort {
            owner: endpoint.owner.0,
            pod: endpoint.pod.0,
            gateway_mac: endpoint.gateway_mac,
            pod_mac: endpoint.pod_mac,
            bridge: endpoint.bridge.unwrap_or(0),
            flags: flags_of(endpoint),
            _pad: [0; 4],
        };
        let written = self.write_port(endpoint, &port);
        drop(addresses);
        let result = written.and_then(|()| {
            attach(endpoint.ifindex, "to_pod", endpoint.attach, How::Clsact)?;
            attach(endpoint.ifindex, "from_pod", endpoint.attach, How::Clsact).map(drop)
        });
        if result.is_err() {
            // The first error is the one that tells; what cannot be undone now, DEL finds.
            let _ = self.forget(endpoint.ifindex);
        }
        result
    }

    /// The interfaces that had its addresses or its index and are gone; an error where one is not.
    fn gone_before(&self, endpoint: &Endpoint) -> Result<BTreeSet<u32>, Error> {
        let mut gone = BTreeSet::new();
        for address in &endpoint.addresses {
            match self.holder(address)? {
                Some(ifindex) if ifindex != endpoint.ifindex => {
                    if super::attach::interface_name(ifindex).is_ok() {
                        return Err(Error::AddressTaken { address: *address, ifindex });
                    }
                    gone.insert(ifindex);
                }
                _ => {}
            }
        }
        if self.owner_of(endpoint.ifindex)?.is_some_and(|owner| owner != endpoint.owner) {
            gone.insert(endpoint.ifindex);
        }
        Ok(gone)
    }

    /// Whether an interface is an endpoint of `owner`'s.
    pub fn has(&self, ifindex: u32, owner: Owner) -> Result<bool, Error> {
        Ok(self.owner_of(ifindex)? == Some(owner))
    }

    /// Whether an endpoint's programs hang on its interface.
    pub fn is_attached(&self, ifindex: u32) -> Result<bool, Error> {
        for program in ["from_pod", "to_pod"] {
            if attached(ifindex, program)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The interfaces by which the host reaches endpoints: host ends, and the bridges that they are ports of.
    pub fn interfaces_of_pods(&self) -> Result<BTreeSet<u32>, Error> {
        let ports = entries(&self.maps.ports()?, "PORTS")?;
        let of_pods = ports.into_iter().filter(|(_, port)| port.flags & ADOPTED == 0);
        let both = of_pods.flat_map(|(ifindex, port)| [ifindex, port.bridge]);
        // 0: it is routed.
        Ok(both.filter(|index| *index != 0).collect())
    }

    fn owner_of(&self, ifindex: u32) -> Result<Option<Owner>, Error> {
        match self.maps.ports()?.get(&ifindex, 0) {
            // An adopted one is nobody's: who registers takes it over as it is.
            Ok(port) => Ok((port.flags & ADOPTED == 0).then_some(Owner(port.owner))),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(Error::Map { verb: "read", map: "PORTS", source }),
        }
    }

    fn write_port(&self, endpoint: &Endpoint, port: &PodPort) -> Result<(), Error> {
        let entry =
            EndpointEntry { ifindex: endpoint.ifindex, mac: endpoint.pod_mac, _pad: [0; 2] };
        let mut ports = self.maps.ports()?;
        ports.insert(endpoint.ifindex, port, 0).map_err(|source| Error::Map {
            verb: "write",
            map: "PORTS",
            source,
        })?;
        for address in &endpoint.addresses {
            match address {
                IpAddr::V4(address) => self.write_address::<V4>((*address).into(), &entry)?,
                IpAddr::V6(address) => self.write_address::<V6>((*address).into(), &entry)?,
            }
        }
        Ok(())
    }

    fn write_address<V: Family>(
        &self,
        address: V::Address,
        entry: &EndpointEntry,
    ) -> Result<(), Error>
    where
        V::Address: Pod,
    {
        let mut endpoints = self.maps.endpoints::<V>()?;
        endpoints.insert(address, entry, 0).map_err(|source| Error::Map {
            verb: "write",
            map: V::ENDPOINTS,
            source,
        })
    }

    fn holder(&self, address: &IpAddr) -> Result<Option<u32>, Error> {
        fn find<V: Family>(datapath: &Datapath, address: V::Address) -> Result<Option<u32>, Error>
        where
            V::Address: Pod,
        {
            match datapath.maps.endpoints::<V>()?.get(&address, 0) {
                Ok(entry) => Ok(Some(entry.ifindex)),
                Err(aya::maps::MapError::KeyNotFound) => Ok(None),
                Err(source) => Err(Error::Map { verb: "read", map: V::ENDPOINTS, source }),
            }
        }
        match address {
            IpAddr::V4(address) => find::<V4>(self, (*address).into()),
            IpAddr::V6(address) => find::<V6>(self, (*address).into()),
        }
    }

    /// Detaches from every endpoint of `owner`, voids all learned flows, and removes its entries. Call before the veth is
    /// removed. Content when there is nothing, and with what is left of the maps. Returns the interface indexes that had been registered.
    pub fn unregister(&self, owner: Owner) -> Result<Vec<u32>, Error> {
        // First, so that no call comes in any more.
        self.close_host_ports(owner)?;
        let ports = entries_left(self.maps.ports(), "PORTS")?;
        let mine: Vec<u32> = ports
            .into_iter()
            .filter(|(_, port)| port.owner == owner.0)
            .map(|(ifindex, _)| ifindex)
            .collect();
        for ifindex in &mine {
            self.forget(*ifindex)?;
        }
        Ok(mine)
    }

    /// The same for one interface, where PORTS is lost and nobody else knows whose it is.
    pub fn unregister_interface(&self, ifindex: u32) -> Result<(), Error> {
        self.forget(ifindex)
    }

    /// Detaches from `ifindex` and removes every map entry that leads there or comes from there: the index and its pod's
    /// addresses may be given to another pod.
    ///
    /// The addresses go first, so that the programs write no mapping of them again; then, once nothing enters any more, the
    /// epoch ends, so that nothing is learned of what is in the host's hands. PORTS goes last: by it a DEL that was killed
    /// half way finds here again.
    fn forget(&self, ifindex: u32) -> Result<(), Error> {
        let addresses = Lock::of_addresses()?;
        self.forget_addresses::<V4>(ifindex)?;
        self.forget_addresses::<V6>(ifindex)?;
        drop(addresses);
        detach_endpoint(ifindex)?;
        // It was adopted before.
        clsact::give_back(ifindex)?;
        left(self.bump_epoch())?;
        self.forget_flows::<V4>(ifindex)?;
        self.forget_flows::<V6>(ifindex)?;
        left(self.maps.ports())?.map_or(Ok(()), |mut ports| remove(&mut ports, &ifindex, "PORTS"))
    }

    fn forget_addresses<V: Family>(&self, ifindex: u32) -> Result<(), Error>
    where
        V::Address: Pod,
    {
        let Some(mut endpoints) = left(self.maps.endpoints::<V>())? else { return Ok(()) };
        for (address, entry) in entries(&endpoints, V::ENDPOINTS)? {
            if entry.ifindex == ifindex {
                remove(&mut endpoints, &address, V::ENDPOINTS)?;
            }
        }
        Ok(())
    }

    /// Removes the flows of an interface, the mappings of addresses that are no pod's any more, and the visits of epochs that
    /// have ended.
    fn forget_flows<V: Family>(&self, ifindex: u32) -> Result<(), Error>
    where
        V::Address: Pod,
    {
        if let Some(mut flows) = left(self.maps.flows::<V>())? {
            for (tuple, flow) in entries(&flows, V::FLOWS)? {
                if flow.entered_by == ifindex || flow.leaves_by == ifindex {
                    remove(&mut flows, &tuple, V::FLOWS)?;
                }
            }
        }
        if let Some(nat_out) = left(self.maps.nat_out::<V>())? {
            self.remove_of_nobody::<V>(nat_out, V::NAT_OUT, |tuple, mapping| {
                (mapping.kind != MOVED).then_some(tuple.source)
            })?;
        }
        if let Some(nat_in) = left(self.maps.nat_in::<V>())? {
            self.remove_of_nobody::<V>(nat_in, V::NAT_IN, |tuple, mapping| match mapping.kind {
                HOST | MOVED => None,
                SPARE => Some(tuple.destination),
                _ => Some(mapping.address),
            })?;
        }
        // Nor is anything lost with a visit, where the epoch is.
        let epoch = left(self.config())?.map(|config| config.epoch);
        if let Some(mut visits) = left(self.maps.visits::<V>())? {
            for (hash, visit) in entries(&visits, V::VISITS)? {
                if epoch != Some(visit.epoch) {
                    remove(&mut visits, &hash, V::VISITS)?;
                }
            }
        }
        Ok(())
    }

    /// Removes the mappings of addresses that are no pod's. Where nobody can tell which these are, all go: a packet of a
    /// pod's takes the same port again.
    fn remove_of_nobody<V: Family>(
        &self,
        mut mappings: Table<Tuple<V>, Mapping<V>>,
        map: &'static str,
        pod_of: impl Fn(&Tuple<V>, &Mapping<V>) -> Option<V::Address>,
    ) -> Result<(), Error>
    where
        V::Address: Pod,
    {
        /// How many go before somebody who registers gets his turn.
        const AT_ONCE: usize = 1_000;
        let known = entries(&mappings, map)?;
        let pods_of = known.iter().filter_map(|(tuple, it)| Some((tuple, pod_of(tuple, it)?)));
        let pods = self.pods::<V>()?;
        let of_nobody: Vec<_> = pods_of.filter(|(_, pod)| !pods.contains(pod)).collect();
        for some in of_nobody.chunks(AT_ONCE) {
            // Whoever has come since then has mappings already, and who comes now waits.
            let _addresses = Lock::of_addresses()?;
            let pods = self.pods::<V>()?;
            for (tuple, _) in some.iter().filter(|(_, pod)| !pods.contains(pod)) {
                remove(&mut mappings, tuple, map)?;
            }
        }
        Ok(())
    }

    fn pods<V: Family>(&self) -> Result<HashSet<V::Address>, Error>
    where
        V::Address: Pod,
    {
        let endpoints = entries_left(self.maps.endpoints::<V>(), V::ENDPOINTS)?;
        Ok(endpoints.into_iter().map(|(address, _)| address).collect())
    }

    /// The endpoints that are registered, as far as what is left of the maps tells.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        let v4 = entries_left(self.maps.endpoints::<V4>(), V4::ENDPOINTS)?;
        let v6 = entries_left(self.maps.endpoints::<V6>(), V6::ENDPOINTS)?;
        let mut endpoints: Vec<_> = entries_left(self.maps.ports(), "PORTS")?
            .into_iter()
            .filter(|(_, port)| port.flags & ADOPTED == 0)
            .map(|(ifindex, port)| {
                let of4 = v4.iter().filter(|(_, entry)| entry.ifindex == ifindex);
                let of6 = v6.iter().filter(|(_, entry)| entry.ifindex == ifindex);
                let mut addresses: Vec<IpAddr> =
                    of4.map(|(address, _)| std::net::Ipv4Addr::from(*address).into()).collect();
                addresses.extend(
                    of6.map(|(address, _)| IpAddr::from(std::net::Ipv6Addr::from(*address))),
                );
                addresses.sort();
                let is_unrouted = |address: &IpAddr| port.flags & unrouted_of(address) != 0;
                Endpoint {
                    ifindex,
                    owner: Owner(port.owner),
                    pod: PodId(port.pod),
                    bridge: (port.bridge != 0).then_some(port.bridge),
                    gateway_mac: port.gateway_mac,
                    pod_mac: port.pod_mac,
                    unrouted: addresses.iter().copied().filter(is_unrouted).collect(),
                    addresses,
                    source_guard: port.flags & SOURCE_GUARD != 0,
                    attach: Attach::Auto,
                }
            })
            .collect();
        endpoints.sort_by_key(|endpoint| endpoint.ifindex);
        Ok(endpoints)
    }

    /// The endpoints on a bridge with addresses that the host did not route by it when it was asked.
    pub fn unrouted(&self, bridge: u32) -> Result<Vec<Endpoint>, Error> {
        const ANY: u32 = unrouted::<V4>() | unrouted::<V6>();
        let ports = entries(&self.maps.ports()?, "PORTS")?;
        let is_unrouted = |port: &PodPort| port.bridge == bridge && port.flags & ANY != 0;
        if !ports.iter().any(|(_, port)| is_unrouted(port)) {
            return Ok(Vec::new());
        }
        let mut endpoints = self.endpoints()?;
        endpoints.retain(|it| it.bridge == Some(bridge) && !it.unrouted.is_empty());
        Ok(endpoints)
    }

    /// Writes anew what of an endpoint is unrouted; content where it is gone by now.
    pub fn set_unrouted(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let fail = |source| Error::Map { verb: "write", map: "PORTS", source };
        // So that nobody else's port of that index is taken for it.
        let _addresses = Lock::of_addresses()?;
        let mut ports = self.maps.ports()?;
        let port = match ports.get(&endpoint.ifindex, 0) {
            Ok(port) if port.owner == endpoint.owner.0 => port,
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        let port = PodPort { flags: flags_of(endpoint), ..port };
        match ports.insert(endpoint.ifindex, port, BPF_EXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.kind() == NotFound => Ok(()),
            written => written.map_err(fail),
        }
    }

    /// How `program` hangs on an interface, if it does.
    pub fn how_attached(&self, ifindex: u32, program: &'static str) -> Result<Option<How>, Error> {
        attached(ifindex, program)
    }

    /// What CHECK asks: entries as given, programs attached on `endpoint.ifindex`. The list of what is wrong,
    /// each a clause fit for an error message; empty when all is well.
    pub fn check(&self, endpoint: &Endpoint) -> Result<Vec<String>, Error> {
        let mut wrong = Vec::new();
        match self.endpoints()?.into_iter().find(|known| known.ifindex == endpoint.ifindex) {
            None => {
                wrong.push(format!("interface {} is not registered in PORTS", endpoint.ifindex))
            }
            Some(known) => {
                if known.owner != endpoint.owner {
                    wrong.push(format!(
                        "interface {} is registered for another container",
                        endpoint.ifindex
                    ));
                }
                if known.pod_mac != endpoint.pod_mac || known.gateway_mac != endpoint.gateway_mac {
                    wrong.push(format!(
                        "the MACs registered for interface {} differ",
                        endpoint.ifindex
                    ));
                }
                for address in
                    endpoint.addresses.iter().filter(|address| !known.addresses.contains(address))
                {
                    wrong.push(format!("the address {address} is not registered in ENDPOINTS"));
                }
            }
        }
        for program in ["from_pod", "to_pod"] {
            if attached(endpoint.ifindex, program)?.is_none() {
                wrong.push(format!("{program} is not attached to interface {}", endpoint.ifindex));
            }
        }
        Ok(wrong)
    }

    /// Moves `from_pod` of every endpoint from clsact to TCX, where it costs a packet less. Returns how many moved. Waits for
    /// who adds or takes away pods, and for who loads or unloads, and has them wait: not for one that the caller has opened to
    /// keep others from unloading.
    pub fn promote(&self) -> Result<usize, Error> {
        let mut moved = 0;
        for endpoint in self.endpoints()? {
            // Anew for each: attaching takes its time, and others have theirs in between.
            let _lock = Lock::exclusive()?;
            // A link that is pinned for who has gone, or after all was unloaded, nobody would find.
            if left(self.owner_of(endpoint.ifindex))?.flatten() != Some(endpoint.owner) {
                continue;
            }
            match attached(endpoint.ifindex, "from_pod") {
                Ok(Some(How::Clsact)) => {
                    promote(endpoint.ifindex)?;
                    moved += 1;
                }
                // Gone without a DEL, which is still to come.
                Ok(_) | Err(Error::Interface { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(moved)
    }

    /// Puts the pinned programs where older ones hang.
    pub(super) fn reattach(&self) -> Result<(), Error> {
        for endpoint in self.endpoints()? {
            for program in ["to_pod", "from_pod"] {
                // One may be gone without a DEL, which is still to come.
                replace(endpoint.ifindex, program)?;
            }
        }
        self.reattach_adopted()?;
        self.reattach_uplinks()
    }
}

fn flags_of(endpoint: &Endpoint) -> u32 {
    let guard = if endpoint.source_guard { SOURCE_GUARD } else { 0 };
    endpoint.unrouted.iter().map(unrouted_of).fold(guard, |flags, flag| flags | flag)
}

fn unrouted_of(address: &IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => unrouted::<V4>(),
        IpAddr::V6(_) => unrouted::<V6>(),
    }
}
