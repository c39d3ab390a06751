//! Mappings by the thousand.

use std::net::IpAddr;
use std::ops::Range;

use aya::maps::{Array, HashMap, Map, MapData};
use netplug_common::decide::mapping_life::{Lifetimes, Stage};
use netplug_common::ip::{IpVersion, Ipv4, Ipv6, V4, V6};
use netplug_common::maps::LAYOUT;
use netplug_common::maps::config::Config;
use netplug_common::maps::nat::{Mapping, NatState, TRANSLATED};
use netplug_common::tuple::{Port, TCP, Tuple};

use crate::cast::{Family, NODE_1, OUTSIDE};
use crate::eventually::{SOON, eventually};
use crate::namespace::Namespace;

/// What a map is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filling {
    /// Connections that carry data.
    Established,
    /// Openings that nobody has answered, of ten seconds ago.
    Unanswered,
    /// What ended a second ago.
    Ended,
}

/// Fills both maps of mappings of one family until nothing more goes in. There must be one mapping, of an established TCP
/// connection: by it the kernel's time is told.
///
/// # Panics
/// Where that is not so, or nothing is loaded.
pub fn fill(node: &Namespace, family: Family, filling: Filling) {
    fill_maps(node, family, filling, &["NAT_IN", "NAT_OUT"]);
}

/// The same of the one by which packets leave.
///
/// # Panics
/// As there.
pub fn fill_out(node: &Namespace, family: Family, filling: Filling) {
    fill_maps(node, family, filling, &["NAT_OUT"]);
}

fn fill_maps(node: &Namespace, family: Family, filling: Filling, maps: &[&str]) {
    node.enter(|| match family {
        Family::V4 => {
            fill_of::<V4>('4', filling, maps, |number| Ipv4 { octets: number.to_be_bytes() });
        }
        Family::V6 => fill_of::<V6>('6', filling, maps, |number| {
            let mut octets = [0x20; 16];
            octets[12..].copy_from_slice(&number.to_be_bytes());
            Ipv6 { octets }
        }),
    });
}

/// Gives a pod mappings of connections to the outside, from these ports of its own, which the node has for them, too.
///
/// # Panics
/// Where nothing is loaded.
pub fn give(node: &Namespace, pod: IpAddr, ports: Range<u16>) {
    node.enter(|| match pod {
        IpAddr::V4(pod) => give_of::<V4>('4', [pod, OUTSIDE.v4, NODE_1.v4].map(Ipv4::from), ports),
        IpAddr::V6(pod) => give_of::<V6>('6', [pod, OUTSIDE.v6, NODE_1.v6].map(Ipv6::from), ports),
    });
}

fn give_of<V: IpVersion>(family: char, addresses: [V::Address; 3], ports: Range<u16>) {
    let [pod, outside, as_node] = addresses;
    let [mut nat_out, mut nat_in] = ["NAT_OUT", "NAT_IN"].map(|name| of::<V>(name, family));
    for port in ports.map(Port::new) {
        let tuple = Tuple::<V> {
            source: pod,
            destination: outside,
            source_port: port,
            destination_port: Port::new(80),
            protocol: TCP,
            _pad: [0; 3],
        };
        let half = |address| Mapping {
            expires_at: 0,
            port,
            kind: TRANSLATED,
            stage: Stage::Established as u8,
            address,
        };
        let answer = Tuple { source: as_node, ..tuple }.reversed();
        nat_in.insert(answer, half(pod), 0).expect("there is room");
        nat_out.insert(tuple, half(as_node), 0).expect("there is room");
    }
}

/// Calls `begin`, and returns when the first of the mappings that pods have is gone.
///
/// # Panics
/// Where there is none, or it stays.
pub fn await_loss(node: &Namespace, family: Family, begin: impl FnOnce() + Send) {
    node.enter(|| match family {
        Family::V4 => await_loss_of::<V4>('4', begin),
        Family::V6 => await_loss_of::<V6>('6', begin),
    });
}

fn await_loss_of<V: IpVersion>(family: char, begin: impl FnOnce()) {
    let nat_out = of::<V>("NAT_OUT", family);
    // Who goes through them all finds this one first.
    let first = nat_out.keys().next().expect("there is one").expect("it can be read");
    begin();
    eventually(SOON, || nat_out.get(&first, 0).err().ok_or("it is there"));
}

fn of<V: IpVersion>(name: &str, family: char) -> HashMap<MapData, Tuple<V>, Mapping<V>> {
    open(&format!("{name}{family}")).try_into().expect("a hash of mappings")
}

/// Has all mappings of both families end, as if nothing had been seen of them for ten days.
///
/// # Panics
/// Where nothing is loaded.
pub fn end_all(node: &Namespace) {
    age(node, 10 * 24 * 3_600);
}

/// Makes all mappings of both families so many seconds older.
///
/// # Panics
/// Where nothing is loaded.
pub fn age(node: &Namespace, seconds: u32) {
    node.enter(|| {
        age_of::<V4>('4', seconds);
        age_of::<V6>('6', seconds);
    });
}

/// Has the last search for mappings that have ended be two days ago.
///
/// # Panics
/// Where nothing is loaded.
pub fn last_swept_long_ago(node: &Namespace) {
    const TWO_DAYS: u64 = 2 * 24 * 3_600 * 1_000_000_000;
    node.enter(|| {
        let mut states: Array<_, NatState> = open("NAT_STATE").try_into().expect("an array");
        for family in 0..2 {
            let state = states.get(&family, 0).expect("each family has an entry");
            let state = NatState { sweep_after: TWO_DAYS.wrapping_neg(), ..state };
            states.set(family, state, 0).expect("it can be written");
        }
    });
}

/// How many entries NAT_IN and NAT_OUT have of one family, ended ones too.
///
/// # Panics
/// Where nothing is loaded.
#[must_use]
pub fn count(node: &Namespace, family: Family) -> [usize; 2] {
    fn of<V: IpVersion>(name: &str, family: char) -> usize {
        let map: HashMap<_, Tuple<V>, Mapping<V>> =
            open(&format!("{name}{family}")).try_into().expect("a hash of mappings");
        map.iter().filter_map(Result::ok).count()
    }
    node.enter(|| {
        ["NAT_IN", "NAT_OUT"].map(|name| match family {
            Family::V4 => of::<V4>(name, '4'),
            Family::V6 => of::<V6>(name, '6'),
        })
    })
}

fn age_of<V: IpVersion>(family: char, seconds: u32) {
    let config: Array<_, Config> = open("CONFIG").try_into().expect("an array");
    let config = config.get(&0, 0).expect("CONFIG has an entry");
    let jiffies = seconds * config.jiffies_per_second as u32;
    for name in ["NAT_IN", "NAT_OUT"] {
        let mut map = of::<V>(name, family);
        let known: Vec<_> = map.iter().filter_map(Result::ok).collect();
        for (tuple, mapping) in known {
            let expires_at = mapping.expires_at.wrapping_sub(jiffies);
            map.insert(tuple, Mapping { expires_at, ..mapping }, 0).expect("it has its place");
        }
    }
}

fn open(name: &str) -> Map {
    let path = format!("/sys/fs/bpf/netplug/v{LAYOUT}/{name}");
    MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .unwrap_or_else(|error| panic!("cannot open {path}: {error}"))
}

fn fill_of<V: IpVersion>(
    family: char,
    filling: Filling,
    maps: &[&str],
    address: impl Fn(u32) -> V::Address,
) {
    let config: Array<_, Config> = open("CONFIG").try_into().expect("an array");
    let config = config.get(&0, 0).expect("CONFIG has an entry");
    let seconds = |seconds: u32| seconds.wrapping_mul(config.jiffies_per_second as u32);
    for name in maps {
        let mut map = of::<V>(name, family);
        let known = map.iter().next().expect("there is one mapping").expect("it can be read").1;
        let now = known
            .expires_at
            .wrapping_sub(seconds(Lifetimes::DEFAULT.tcp_established))
            .wrapping_sub(config.revisit_jiffies as u32);
        let (stage, expires_at) = match filling {
            Filling::Established => (Stage::Established, known.expires_at),
            Filling::Unanswered => {
                let left = seconds(Lifetimes::DEFAULT.tcp_opening - 10);
                let revisit = config.revisit_jiffies as u32;
                (Stage::Opening, now.wrapping_add(left).wrapping_add(revisit))
            }
            Filling::Ended => (Stage::Closed, now.wrapping_sub(seconds(1))),
        };
        let mapping = Mapping { expires_at, stage: stage as u8, kind: TRANSLATED, ..known };
        let full = (0u32..).find(|number| {
            let tuple = Tuple::<V> {
                source: address(0x0b00_0000 + number),
                destination: address(1),
                source_port: Port::new(80),
                destination_port: Port::new(2_000),
                protocol: TCP,
                _pad: [0; 3],
            };
            map.insert(tuple, mapping, 0).is_err()
        });
        assert!(full.is_some_and(|count| count > 100_000), "{name} took {full:?}");
    }
}
