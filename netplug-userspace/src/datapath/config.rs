//! CONFIG, the epoch, and the CIDRs that are not masqueraded.

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
use super::{Datapath, Error, Settings, Steering};

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

    /// Writes what each load draws anew, where nothing is written yet.
    pub(super) fn write_first_config(&self) -> Result<(), Error> {
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
            config.epoch = 1;
            config.lifetimes = Lifetimes::DEFAULT;
            config.local_ports = PortRange::EMPTY;
            config.masquerade_ports = PortRanges::without(&[NODE_PORTS, LOCAL_PORTS]);
        })
    }

    /// Tells the programs what a network's configuration says. The last one counts. What flows may depend on voids them.
    pub fn apply(&self, settings: &Settings) -> Result<(), Error> {
        let lock = Lock::of_settings()?;
        let ports = ports_of(settings)?;
        settings.masquerade.check()?;
        // What can be refused comes first.
        self.write_uplinks(&lock, &settings.uplinks, settings.attach)?;
        self.write_settings(&lock, settings, ports)
    }

    fn write_settings(
        &self,
        lock: &Lock,
        settings: &Settings,
        ports: Option<(PortRange, PortRanges)>,
    ) -> Result<(), Error> {
        let per_second = jiffies_per_second();
        let host_ports = self.host_ports()?;
        self.change(lock, |config| {
            config.steering = match settings.steering {
                Steering::Learn => STEERING_LEARN,
                Steering::Always => STEERING_ALWAYS,
                Steering::Direct => STEERING_DIRECT,
            };
            config.revisit_jiffies = jiffies(settings.revisit, per_second);
            config.lifetimes = settings.lifetimes;
            config.flags =
                (config.flags & !LEARN_TCP) | if settings.learns_tcp { LEARN_TCP } else { 0 };
            if let Some((local, left)) = ports {
                // Others than at first may be a pod's already: what comes in by them is looked at.
                config.local_ports = local.within(config.local_ports);
                config.masquerade_ports = left;
                // Opened before the range was known, or when it was another.
                if host_ports.iter().any(|(_, open)| local.contains(open.port)) {
                    config.flags |= EPHEMERAL_HOST_PORTS;
                }
            }
        })?;
        self.write_masquerade(lock, &settings.masquerade).map(drop)
    }

    /// Makes a family's CIDRs those of `networks`. Returns whether they were others.
    pub(super) fn write_exempt<V: Family>(
        &self,
        networks: &[IpNetwork],
        of_family: impl Fn(&IpNetwork) -> Option<(u8, V::Octets)>,
    ) -> Result<bool, Error> {
        let mut has_changed = false;
        let fail = |verb| move |source| Error::Map { verb, map: V::NON_MASQUERADE, source };
        let mut map = self.maps.non_masquerade::<V>()?;
        let known = map.keys().collect::<Result<Vec<_>, _>>().map_err(fail("read"))?;
        let is_same = |key: &Key<V::Octets>, prefix: u8, octets: &V::Octets| {
            key.prefix_len() == u32::from(prefix) && key.data() == *octets
        };
        let wanted: Vec<_> = networks.iter().filter_map(of_family).collect();
        for (prefix, octets) in &wanted {
            if !known.iter().any(|key| is_same(key, *prefix, octets)) {
                let key = Key::new(u32::from(*prefix), *octets);
                map.insert(&key, 0, 0).map_err(fail("write"))?;
                has_changed = true;
            }
        }
        for key in &known {
            if !wanted.iter().any(|(prefix, octets)| is_same(key, *prefix, octets)) {
                map.remove(key).map_err(fail("remove an entry of"))?;
                has_changed = true;
            }
        }
        Ok(has_changed)
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

/// The host's ephemeral ports, where they are known, and those that they leave to masquerade; refused where it needs some and
/// there are none.
fn ports_of(settings: &Settings) -> Result<Option<(PortRange, PortRanges)>, Error> {
    let Some((first, last)) = settings.local_ports else { return Ok(None) };
    let local = PortRange { first, last };
    let mut taken = [NODE_PORTS, local];
    taken.sort_by_key(|range| range.first);
    let left = PortRanges::without(&taken);
    if settings.masquerade.on && left.count == 0 {
        return Err(Error::NoPorts { first, last });
    }
    Ok(Some((local, left)))
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
