//! What is masqueraded, and what becomes of open connections when that changes: NON_MASQ, flags of CONFIG, identities.
//!
//! The kernel's NAT asks its rules once for each connection. So here: what was masqueraded finds its mapping (in `to_uplink`),
//! and what was not has none, so that identities are written for it before it would be masqueraded. Flows of UDP, which
//! nobody opens, follow the change; of what the flow cache has forgotten nothing is known.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use aya::Pod;
use aya::maps::MapError;
use ipnetwork::IpNetwork;
use netplug_common::decide::mapping_life::Stage;
use netplug_common::decide::port_choice::{PortRange, PortRanges};
use netplug_common::ip::{Address, Ipv4, Ipv6, V4, V6};
use netplug_common::maps::NON_MASQUERADE;
use netplug_common::maps::config::{
    Config, MASQUERADE, MASQUERADE_LINK_LOCAL4, MASQUERADE_LINK_LOCAL6,
};
use netplug_common::maps::flow::CLOSED;
use netplug_common::maps::nat::{IDENTITY, Mapping};
use netplug_common::tuple::TCP;

use super::maps::{Family, entries};
use super::pin::Lock;
use super::{Datapath, Error, Masquerade};

/// The flags that [`Masquerade`] is about.
const FLAGS: u32 = MASQUERADE | MASQUERADE_LINK_LOCAL4 | MASQUERADE_LINK_LOCAL6;

/// How many CIDRs of a family may be exempt: while others take their place, both are.
const LIMIT: u32 = NON_MASQUERADE / 2;

impl Masquerade {
    fn flags(&self) -> u32 {
        [
            (self.on, MASQUERADE),
            (self.link_local, MASQUERADE_LINK_LOCAL4),
            (self.link_local_ipv6, MASQUERADE_LINK_LOCAL6),
        ]
        .into_iter()
        .fold(0, |flags, (is_on, flag)| if is_on { flags | flag } else { flags })
    }

    /// Refuses what the maps cannot hold, before anything is written.
    pub fn check(&self) -> Result<(), Error> {
        let v4 = self.exempt.iter().filter(|network| network.is_ipv4()).count();
        let count = v4.max(self.exempt.len() - v4);
        if count > LIMIT as usize {
            return Err(Error::TooManyCidrs { count, limit: LIMIT });
        }
        Ok(())
    }

    /// Refuses to masquerade where the host's ephemeral ports have `left` none.
    pub(super) fn check_ports(&self, local: PortRange, left: PortRanges) -> Result<(), Error> {
        if self.on && left.count == 0 {
            return Err(Error::NoPorts { first: local.first, last: local.last });
        }
        Ok(())
    }

    /// Whether pods' packets to `address` stay as they are.
    fn leaves_alone(&self, address: IpAddr) -> bool {
        let is_left = match address {
            IpAddr::V4(address) => Ipv4::from(address).is_link_local() && !self.link_local,
            IpAddr::V6(address) => Ipv6::from(address).is_link_local() && !self.link_local_ipv6,
        };
        !self.on || is_left || self.exempt.iter().any(|network| network.contains(address))
    }
}

/// As the maps have them: without host bits.
fn networks(exempt: &[IpNetwork]) -> BTreeSet<IpNetwork> {
    let canonical = |network: &IpNetwork| IpNetwork::new(network.network(), network.prefix());
    exempt.iter().flat_map(canonical).collect()
}

impl Datapath {
    /// What is masqueraded.
    pub fn masquerade(&self) -> Result<Masquerade, Error> {
        let flags = self.config()?.flags;
        Ok(Masquerade {
            on: flags & MASQUERADE != 0,
            link_local: flags & MASQUERADE_LINK_LOCAL4 != 0,
            link_local_ipv6: flags & MASQUERADE_LINK_LOCAL6 != 0,
            exempt: self.non_masquerade()?,
        })
    }

    /// Tells the programs what to masquerade, and nothing else. Whether that is something new.
    pub fn set_masquerade(&self, masquerade: &Masquerade) -> Result<bool, Error> {
        let lock = Lock::of_settings()?;
        let Config { local_ports, masquerade_ports, .. } = self.config()?;
        masquerade.check_ports(local_ports, masquerade_ports)?;
        self.write_masquerade(&lock, masquerade, |_| {})
    }

    /// The same, and `tell`s CONFIG what else there is. Where that fails, all is as it was.
    pub(super) fn write_masquerade(
        &self,
        lock: &Lock,
        masquerade: &Masquerade,
        tell: impl FnOnce(&mut Config),
    ) -> Result<bool, Error> {
        let (config, before) = (self.config()?, self.masquerade()?);
        let written = self.turn_masquerade(lock, masquerade, tell);
        if written.is_err() {
            // The first error is the one that tells.
            let _ = self.turn_masquerade(lock, &before, |now| {
                let epoch = now.epoch;
                *now = config;
                now.epoch = epoch;
            });
        }
        written
    }

    /// What is to be exempt is so before more is masqueraded, and until then so is what is exempt no more: whenever this is
    /// killed, nobody is translated who neither was before nor is to be.
    fn turn_masquerade(
        &self,
        lock: &Lock,
        after: &Masquerade,
        tell: impl FnOnce(&mut Config),
    ) -> Result<bool, Error> {
        let before = self.masquerade()?;
        let (known, wanted) = (networks(&before.exempt), networks(&after.exempt));
        let (new, old) = (&wanted - &known, &known - &wanted);
        self.exempt(&new)?;
        self.keep_open::<V4>(&before, after, |address| std::net::Ipv4Addr::from(address).into())?;
        self.keep_open::<V6>(&before, after, |address| std::net::Ipv6Addr::from(address).into())?;
        self.change(lock, |config| {
            tell(config);
            config.flags = (config.flags & !FLAGS) | after.flags();
            config.epoch = config.epoch.wrapping_add(u32::from(!new.is_empty()));
        })?;
        if !old.is_empty() {
            self.exempt_no_more(&old)?;
            self.change(lock, |config| config.epoch = config.epoch.wrapping_add(1))?;
        }
        Ok(!new.is_empty() || !old.is_empty() || before.flags() != after.flags())
    }

    /// Writes identities of the cached TCP connections that were left alone `before` and would not be `after`.
    fn keep_open<V: Family>(
        &self,
        before: &Masquerade,
        after: &Masquerade,
        human: impl Fn(V::Address) -> IpAddr,
    ) -> Result<(), Error>
    where
        V::Address: Pod,
    {
        let is_less = !before.on && after.on
            || !before.link_local && after.link_local
            || !before.link_local_ipv6 && after.link_local_ipv6
            || before.exempt.iter().any(|network| !after.exempt.contains(network));
        if !is_less {
            return Ok(());
        }
        let pods: HashSet<_> = entries(&self.maps.endpoints::<V>()?, V::ENDPOINTS)?
            .into_iter()
            .map(|(address, _)| address)
            .collect();
        let Config { jiffies_per_second: per_second, lifetimes, .. } = self.config()?;
        let (mut nat_out, mut nat_in) = (self.maps.nat_out::<V>()?, self.maps.nat_in::<V>()?);
        for (entered, flow) in entries(&self.maps.flows::<V>()?, V::FLOWS)? {
            // Of either direction, as the pod sends it.
            let sent = if pods.contains(&flow.left.source) {
                flow.left
            } else if pods.contains(&entered.destination) {
                entered.reversed()
            } else {
                continue;
            };
            let peer = human(sent.destination);
            if sent.protocol != TCP
                || flow.flags & CLOSED != 0
                || pods.contains(&sent.destination)
                || !before.leaves_alone(peer)
                || after.leaves_alone(peer)
            {
                continue;
            }
            // Its next packet puts it off. What there is already is right.
            let life = u64::from(lifetimes.seconds(TCP, Stage::Established)) * per_second;
            let half = Mapping {
                expires_at: flow.revisit_at.wrapping_add(life) as u32,
                port: sent.source_port,
                kind: IDENTITY,
                stage: Stage::Established as u8,
                address: sent.source,
            };
            for (table, key, map) in
                [(&mut nat_out, sent, V::NAT_OUT), (&mut nat_in, sent.reversed(), V::NAT_IN)]
            {
                match table.insert(key, half, BPF_NOEXIST) {
                    Ok(()) => {}
                    Err(MapError::SyscallError(error))
                        if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(Error::Map { verb: "write", map, source }),
                }
            }
        }
        Ok(())
    }
}

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;
