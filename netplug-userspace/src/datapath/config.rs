//! CONFIG, the epoch, and the CIDRs that are not masqueraded.

use std::collections::BTreeSet;
use std::time::Duration;

use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use ipnetwork::IpNetwork;
use netplug_common::decide::mapping_life::Lifetimes;
use netplug_common::decide::port_choice::{NODE_PORTS, PortRange, PortRanges};
use netplug_common::ip::{V4, V6};
use netplug_common::maps::config::{
    Config, EPHEMERAL_HOST_PORTS, LEARN_TCP, STEERING_ALWAYS, STEERING_DIRECT, STEERING_LEARN,
};

use super::maps::Family;
use super::pin::Lock;
use super::{Datapath, Error, HostPort, Owner, Settings, Steering};

/// The kernel's default `ip_local_port_range`, until it is read.
const LOCAL_PORTS: PortRange = PortRange { first: 32_768, last: 60_999 };

impl Datapath {
    /// What the programs are told.
    pub fn config(&self) -> Result<Config, Error> {
        let config = self.maps.config()?;
        config.get(&0, 0).map_err(|source| Error::Map { verb: "read", map: "CONFIG", source })
    }

    /// Voids every cached flow.
    pub fn bump_epoch(&self) -> Result<(), Error> {
        self.change(&Lock::of_settings()?, |config| config.epoch = config.epoch.wrapping_add(1))
    }

    /// Changes CONFIG, whose writers must not overtake one another; a change that flows may depend on voids them.
    pub(super) fn change(&self, _: &Lock, change: impl FnOnce(&mut Config)) -> Result<(), Error> {
        let mut map = self.maps.config()?;
        let fail = |verb| move |source| Error::Map { verb, map: "CONFIG", source };
        let before = map.get(&0, 0).map_err(fail("read"))?;
        let mut config = before;
        change(&mut config);
        if config == before {
            return Ok(());
        }
        if config.epoch == before.epoch {
            config.epoch = before.epoch.wrapping_add(1);
        }
        map.set(0, config, 0).map_err(fail("write"))
    }

    /// Writes what each load draws anew, where nothing is written yet. `flow_cache`: entries of each FLOWS map.
    pub(super) fn write_first_config(&self, flow_cache: u32) -> Result<(), Error> {
        if self.config()?.hash_key != 0 {
            return Ok(());
        }
        let mut random = [0u8; 12];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(
            |error| Error::File { verb: "read", path: "/dev/urandom".into(), source: error.into() },
        )?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = random;
        let per_second = jiffies_per_second();
        self.change(&Lock::of_settings()?, |config| {
            config.hash_key = u64::from_ne_bytes([a, b, c, d, e, f, g, h]) | 1;
            config.marker = u32::from_ne_bytes([i, j, k, l]) | 1;
            config.jiffies_per_second = per_second;
            config.revisit_jiffies = 20 * per_second;
            config.flow_entries = flow_cache;
            config.epoch = 1;
            config.lifetimes = Lifetimes::DEFAULT;
            config.local_ports = PortRange::EMPTY;
            config.masquerade_ports = PortRanges::without(&[NODE_PORTS, LOCAL_PORTS]);
        })
    }

    /// Serves the uplinks that a network's configuration asks for, and refuses what it may not ask for. What else it says
    /// counts once it is [told](Accepted::tell); until then nobody else changes what the programs are told.
    pub fn accept<'a>(&'a self, settings: &'a Settings) -> Result<Accepted<'a>, Error> {
        let lock = Lock::of_settings()?;
        let config = self.config()?;
        let (local, left) =
            settings.ports().unwrap_or((config.local_ports, config.masquerade_ports));
        settings.masquerade.check_ports(local, left)?;
        settings.masquerade.check()?;
        let host_ports = self.host_ports()?;
        self.write_uplinks(&lock, &settings.uplinks, settings.attach)?;
        Ok(Accepted { datapath: self, lock, settings, host_ports })
    }

    /// The age at which a cached flow asks the host again.
    pub fn revisit(&self) -> Result<Duration, Error> {
        let Config { revisit_jiffies, jiffies_per_second, .. } = self.config()?;
        let milliseconds = revisit_jiffies.saturating_mul(1_000) / jiffies_per_second.max(1);
        Ok(Duration::from_millis(milliseconds))
    }

    /// Has pods' packets to `networks` stay as they are.
    pub(super) fn exempt(&self, networks: &BTreeSet<IpNetwork>) -> Result<(), Error> {
        let mut v4 = self.maps.non_masquerade::<V4>()?;
        let mut v6 = self.maps.non_masquerade::<V6>()?;
        for network in networks {
            let (inserted, map) = match network {
                IpNetwork::V4(network) => {
                    let key = Key::new(network.prefix().into(), network.network().octets());
                    (v4.insert(&key, 0, 0), V4::NON_MASQUERADE)
                }
                IpNetwork::V6(network) => {
                    let key = Key::new(network.prefix().into(), network.network().octets());
                    (v6.insert(&key, 0, 0), V6::NON_MASQUERADE)
                }
            };
            inserted.map_err(|source| Error::Map { verb: "write", map, source })?;
        }
        Ok(())
    }

    /// Takes `networks` from what is exempt.
    pub(super) fn exempt_no_more(&self, networks: &BTreeSet<IpNetwork>) -> Result<(), Error> {
        let mut v4 = self.maps.non_masquerade::<V4>()?;
        let mut v6 = self.maps.non_masquerade::<V6>()?;
        for network in networks {
            let (removed, map) = match network {
                IpNetwork::V4(network) => {
                    let key = Key::new(network.prefix().into(), network.network().octets());
                    (v4.remove(&key), V4::NON_MASQUERADE)
                }
                IpNetwork::V6(network) => {
                    let key = Key::new(network.prefix().into(), network.network().octets());
                    (v6.remove(&key), V6::NON_MASQUERADE)
                }
            };
            removed.map_err(|source| Error::Map { verb: "remove an entry of", map, source })?;
        }
        Ok(())
    }

    /// The CIDRs that are not masqueraded.
    pub fn non_masquerade(&self) -> Result<Vec<IpNetwork>, Error> {
        fn read<V: Family, A: Into<std::net::IpAddr>>(
            datapath: &Datapath,
            address: impl Fn(V::Octets) -> A,
        ) -> Result<Vec<IpNetwork>, Error> {
            let fail =
                |source: MapError| Error::Map { verb: "read", map: V::NON_MASQUERADE, source };
            let map = datapath.maps.non_masquerade::<V>()?;
            let mut networks = Vec::new();
            for key in map.keys() {
                let key = key.map_err(fail)?;
                let prefix = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
                // A prefix in the map is one that was written from an IpNetwork.
                networks.extend(IpNetwork::new(address(key.data()).into(), prefix));
            }
            Ok(networks)
        }
        let mut networks = read::<V4, _>(self, std::net::Ipv4Addr::from)?;
        networks.extend(read::<V6, _>(self, std::net::Ipv6Addr::from)?);
        Ok(networks)
    }
}

/// Settings that nothing refuses any more, their uplinks served.
pub struct Accepted<'a> {
    datapath: &'a Datapath,
    lock: Lock,
    settings: &'a Settings,
    host_ports: Vec<(Owner, HostPort)>,
}

impl Accepted<'_> {
    /// Tells the programs the rest. What flows may depend on voids them. `learns_tcp`: whether both conntrack sysctls that
    /// learned TCP needs are set in this namespace (`nf_conntrack_tcp_be_liberal`, `nf_conntrack_tcp_ignore_invalid_rst`);
    /// without them TCP is not learned.
    pub fn tell(self, learns_tcp: bool) -> Result<(), Error> {
        let Self { datapath, lock, settings, host_ports } = self;
        let per_second = jiffies_per_second();
        let told = datapath.write_masquerade(&lock, &settings.masquerade, |config| {
            config.steering = match settings.steering {
                Steering::Learn => STEERING_LEARN,
                Steering::Always => STEERING_ALWAYS,
                Steering::Direct => STEERING_DIRECT,
            };
            config.revisit_jiffies = jiffies(settings.revisit, per_second);
            config.lifetimes = settings.lifetimes;
            config.flags = (config.flags & !LEARN_TCP) | if learns_tcp { LEARN_TCP } else { 0 };
            if let Some((local, left)) = settings.ports() {
                // Others than at first may be a pod's already: what comes in by them is looked at.
                config.local_ports = local.within(config.local_ports);
                config.masquerade_ports = left;
                // Opened before the range was known, or when it was another.
                if host_ports.iter().any(|(_, open)| local.contains(open.port)) {
                    config.flags |= EPHEMERAL_HOST_PORTS;
                }
            }
        });
        told.map(drop)
    }
}

impl Settings {
    /// The host's ephemeral ports, where they are known, and those that they leave to masquerade.
    fn ports(&self) -> Option<(PortRange, PortRanges)> {
        let (first, last) = self.local_ports?;
        let local = PortRange { first, last };
        let mut taken = [NODE_PORTS, local];
        taken.sort_by_key(|range| range.first);
        Some((local, PortRanges::without(&taken)))
    }
}

/// CONFIG_HZ of the running kernel: the coarse clock's resolution is one jiffy.
fn jiffies_per_second() -> u64 {
    let resolution = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    let nanoseconds = u64::try_from(resolution.tv_nsec).unwrap_or(0).max(1);
    // 3,333,333 ns is 300 Hz, rounded.
    (1_000_000_000 + nanoseconds / 2) / nanoseconds
}

fn jiffies(time: Duration, per_second: u64) -> u64 {
    let jiffies = time.as_millis() * u128::from(per_second) / 1000;
    u64::try_from(jiffies).unwrap_or(u64::MAX >> 1).max(1)
}
