//! The shipped programs with maps of a test's own.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use bytemuck::Zeroable;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::Lifetimes;
use netplug_common::decide::port_choice::{PortRange, PortRanges};
use netplug_common::decide::rewrite::deltas;
use netplug_common::ip::{IpVersion, V4, V6};
use netplug_common::maps::config::{Config, LEARN_TCP, MASQUERADE};
use netplug_common::maps::counters::Count;
use netplug_common::maps::endpoint::EndpointEntry;
use netplug_common::maps::flow::Flow;
use netplug_common::maps::nat::Mapping;
use netplug_common::maps::port::{ADOPTED, PodPort, SOURCE_GUARD, unrouted};
use netplug_common::maps::uplink::UplinkEntry;
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::{Port, Tuple};
use netplug_tests::cast::{Actor, CLIENT, GATEWAY, NODE_1, WEB};
use netplug_tests::packet::{Packet, assert_same};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The interface that test runs take place on: `lo`, the only one that every machine has.
pub const HERE: u32 = 1;
/// Where the other pod's host end is said to be.
pub const THERE: u32 = 7777;
const BRIDGE: u32 = 7000;
pub const EPOCH: u32 = 5;
/// The hash of packets that carry none, which test runs begin with.
const NO_HASH: u32 = 0;

/// What TC is told.
pub const NEXT: i32 = -1;
pub const SHOT: i32 = 2;
pub const REDIRECT: i32 = 7;

/// The loaded object.
pub struct Datapath {
    object: Ebpf,
}

/// A family with the names of its maps.
pub trait Family: IpVersion<Address: aya::Pod> {
    const FLOWS: &'static str;
    const NAT_IN: &'static str;
    const NAT_OUT: &'static str;
    const VISITS: &'static str;
    const ENDPOINTS: &'static str;
    fn address(actor: Actor) -> Self::Address;
}

impl Family for V4 {
    const FLOWS: &'static str = "FLOWS4";
    const NAT_IN: &'static str = "NAT_IN4";
    const NAT_OUT: &'static str = "NAT_OUT4";
    const VISITS: &'static str = "VISITS4";
    const ENDPOINTS: &'static str = "ENDPOINTS4";
    fn address(actor: Actor) -> Self::Address {
        actor.v4.into()
    }
}

impl Family for V6 {
    const FLOWS: &'static str = "FLOWS6";
    const NAT_IN: &'static str = "NAT_IN6";
    const NAT_OUT: &'static str = "NAT_OUT6";
    const VISITS: &'static str = "VISITS6";
    const ENDPOINTS: &'static str = "ENDPOINTS6";
    fn address(actor: Actor) -> Self::Address {
        actor.v6.into()
    }
}

/// The tuple of a packet between two of the cast.
pub fn tuple<V: Family>(protocol: u8, source: (Actor, u16), destination: (Actor, u16)) -> Tuple<V> {
    Tuple {
        source: V::address(source.0),
        destination: V::address(destination.0),
        source_port: Port::new(source.1),
        destination_port: Port::new(destination.1),
        protocol,
        _pad: [0; 3],
    }
}

/// A flow from here to WEB's host end.
pub fn flow<V: Family>(entered: &Tuple<V>, left: Tuple<V>, flags: u32) -> Flow<V> {
    let change = deltas(entered, &left);
    Flow {
        tag: entered.tag(),
        revisit_at: u64::MAX,
        left,
        entered_by: HERE,
        leaves_by: THERE,
        epoch: EPOCH,
        flags,
        mtu: 1500,
        address_delta: change.addresses,
        port_delta: change.ports,
        destination_mac: WEB.mac,
        source_mac: GATEWAY.mac,
    }
}

impl Datapath {
    /// CLIENT's host end is where test runs take place, WEB's elsewhere on the same bridge; the node's uplink is here too.
    pub fn new() -> Self {
        Self::logging(0)
    }

    /// The same, with the programs built to log up to `level`, as `aya-log` counts.
    pub fn logging(level: u8) -> Self {
        own_namespace();
        let mut loader = EbpfLoader::new();
        loader.override_global("AYA_LOG_LEVEL", &level, false);
        let mut object = loader.load(netplug::datapath::object()).unwrap();
        for name in netplug::datapath::PROGRAMS {
            let program: &mut SchedClassifier =
                object.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
        }
        let mut datapath = Self { object };
        datapath.configure(|config| config.epoch = EPOCH);
        for (actor, ifindex) in [(CLIENT, HERE), (WEB, THERE)] {
            let port = PodPort {
                pod: u64::from(ifindex),
                gateway_mac: GATEWAY.mac,
                pod_mac: actor.mac,
                bridge: BRIDGE,
                flags: SOURCE_GUARD,
                ..PodPort::zeroed()
            };
            datapath.hash("PORTS").insert(ifindex, port, 0).unwrap();
            let entry = EndpointEntry { ifindex, mac: actor.mac, _pad: [0; 2] };
            datapath.hash("ENDPOINTS4").insert(V4::address(actor), entry, 0).unwrap();
            datapath.hash("ENDPOINTS6").insert(V6::address(actor), entry, 0).unwrap();
        }
        let uplink = UplinkEntry {
            address4: V4::address(NODE_1),
            address6: V6::address(NODE_1),
            ..UplinkEntry::zeroed()
        };
        datapath.hash("UPLINKS").insert(HERE, uplink, 0).unwrap();
        datapath
    }

    /// The same, but WEB is the pod behind the interface where test runs take place, so that what leaves there is for it.
    pub fn with_web_here() -> Self {
        let mut datapath = Self::new();
        let entry = EndpointEntry { ifindex: HERE, mac: WEB.mac, _pad: [0; 2] };
        datapath.hash("ENDPOINTS4").insert(V4::address(WEB), entry, 0).unwrap();
        datapath.hash("ENDPOINTS6").insert(V6::address(WEB), entry, 0).unwrap();
        datapath
    }

    /// The host end where test runs take place is no pod's, but a port of an adopted bridge whose MAC is GATEWAY's: `lo`, by which
    /// WEB's network is routed.
    pub fn adopting() -> Self {
        let mut datapath = Self::new();
        for line in ["-4 route add 10.244.0.0/24 dev lo", "-6 route add fd00:244::/64 dev lo"] {
            assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
        }
        for family in ["ipv4", "ipv6"] {
            std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1").unwrap();
        }
        let port = PodPort {
            gateway_mac: GATEWAY.mac,
            bridge: HERE,
            flags: ADOPTED | unrouted::<V4>() | unrouted::<V6>(),
            ..PodPort::zeroed()
        };
        datapath.hash("PORTS").insert(HERE, port, 0).unwrap();
        datapath
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.object.map_mut(name).unwrap().try_into().unwrap()
    }

    /// Changes CONFIG.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        let mut map: Array<_, Config> = self.object.map_mut("CONFIG").unwrap().try_into().unwrap();
        let mut config = map.get(&0, 0).unwrap();
        if config.hash_key == 0 {
            let local = PortRange { first: 32_768, last: 60_999 };
            config = Config {
                hash_key: 1,
                marker: 1,
                revisit_jiffies: 5000,
                jiffies_per_second: 250,
                flags: LEARN_TCP | MASQUERADE,
                local_ports: local,
                masquerade_ports: PortRanges::without(&[local]),
                lifetimes: Lifetimes::DEFAULT,
                ..Config::zeroed()
            };
            config.uplinks4[0] = V4::address(NODE_1);
            config.uplinks6[0] = V6::address(NODE_1);
        }
        change(&mut config);
        map.set(0, config, 0).unwrap();
    }

    /// Has a flow learned.
    pub fn learned<V: Family>(&mut self, entered: Tuple<V>, flow: Flow<V>) {
        self.hash(V::FLOWS).insert(entered, flow, 0).unwrap();
    }

    /// Whether a flow is cached.
    pub fn knows<V: Family>(&mut self, entered: &Tuple<V>) -> bool {
        self.cached(entered).is_some()
    }

    /// What is cached of a flow.
    pub fn cached<V: Family>(&mut self, entered: &Tuple<V>) -> Option<Flow<V>> {
        self.hash(V::FLOWS).get(entered, 0).ok()
    }

    /// Has CLIENT's packet visit, as the first of all; from here on any that leaves is taken for one that carries its hash.
    #[track_caller]
    pub fn visits<V: Family>(&mut self, packet: &Packet) {
        assert_eq!(self.run("from_pod", HERE, packet).0, NEXT, "{packet}");
        self.carry::<V>();
    }

    /// Has whatever leaves carry the hash of the one visit that was noted. A test run cannot be given a packet that carries
    /// one, so the visit is put where packets without find it.
    #[track_caller]
    pub fn carry<V: Family>(&mut self) {
        let mut visits = self.hash::<u32, Visit<V>>(V::VISITS);
        let noted: Vec<_> = visits.iter().map(Result::unwrap).collect();
        let [(hash, visit)] = noted[..] else { panic!("{} visits are noted", noted.len()) };
        visits.remove(&hash).unwrap();
        visits.insert(NO_HASH, visit, 0).unwrap();
    }

    /// The visit of [`Datapath::visits`].
    pub fn visit<V: Family>(&mut self) -> Visit<V> {
        self.hash(V::VISITS).get(&NO_HASH, 0).unwrap()
    }

    /// Changes that visit.
    pub fn change_visit<V: Family>(&mut self, change: impl FnOnce(&mut Visit<V>)) {
        let mut visit = self.visit::<V>();
        change(&mut visit);
        visit.seal = visit.digest();
        self.hash(V::VISITS).insert(NO_HASH, visit, 0).unwrap();
    }

    /// Exempts a prefix of IPv4 from masquerade.
    pub fn exempt(&mut self, prefix: u32, octets: [u8; 4]) {
        let map = self.object.map_mut("NON_MASQ4").unwrap();
        LpmTrie::<_, [u8; 4], u32>::try_from(map)
            .unwrap()
            .insert(&Key::new(prefix, octets), 0, 0)
            .unwrap();
    }

    /// What was counted under `counter`.
    pub fn counted(&mut self, counter: Counter) -> u64 {
        let map: PerCpuArray<_, Count> =
            self.object.map_mut("COUNTERS").unwrap().try_into().unwrap();
        map.get(&(counter as u32), 0).unwrap().iter().map(|share| share.packets).sum()
    }

    /// The halves of mappings in one of the two maps.
    pub fn halves<V: Family>(&mut self, map: &str) -> Vec<(Tuple<V>, Mapping<V>)> {
        self.hash(map).iter().map(Result::unwrap).collect()
    }

    /// Loses those halves that `which` says.
    pub fn lose<V: Family>(&mut self, map: &str, which: impl Fn(&Tuple<V>) -> bool) {
        for (tuple, _) in self.halves::<V>(map) {
            if which(&tuple) {
                self.hash::<Tuple<V>, Mapping<V>>(map).remove(&tuple).unwrap();
            }
        }
    }

    /// Fills one of the two maps with halves that have ended, from one that it has.
    pub fn fill_with_ended<V: Family>(&mut self, map: &str) {
        let (known, half) = self.halves::<V>(map)[0];
        let ended = Mapping { expires_at: half.expires_at.wrapping_sub(1 << 30), ..half };
        let mut map = self.hash(map);
        let places = (1..=u16::MAX).flat_map(|source| (1..=16).map(move |to| (source, to)));
        let full = places.map(|(source, to)| Tuple {
            source_port: Port::new(source),
            destination_port: Port::new(to),
            ..known
        });
        assert!(full.map(|tuple| map.insert(tuple, ended, 0)).any(|result| result.is_err()));
    }

    /// Lets every mapping's end come to pass, as answers see it.
    pub fn expire_mappings<V: Family>(&mut self) {
        self.expire::<V>(V::NAT_IN);
    }

    /// Lets the end of every half in one of the two maps come to pass.
    pub fn expire<V: Family>(&mut self, map: &str) {
        for (tuple, mut half) in self.halves::<V>(map) {
            // Far enough to be over at any jiffies, near enough not to lie ahead again.
            half.expires_at = half.expires_at.wrapping_sub(1 << 30);
            self.hash(map).insert(tuple, half, 0).unwrap();
        }
    }

    /// Takes a pod's address away, as DEL begins with.
    pub fn forget_address<V: Family>(&mut self, actor: Actor) {
        let mut endpoints = self.hash::<V::Address, EndpointEntry>(V::ENDPOINTS);
        endpoints.remove(&V::address(actor)).unwrap();
    }

    /// Runs `program` on one packet on each of two CPUs, at once; what comes out of each.
    pub fn race(&mut self, program: &str, packets: [&Packet; 2]) -> [(i32, Vec<u8>); 2] {
        let program: &SchedClassifier = self.object.program(program).unwrap().try_into().unwrap();
        let ready = AtomicUsize::new(0);
        let run = |packet: &Packet| {
            let bytes = packet.bytes();
            ready.fetch_add(1, Ordering::SeqCst);
            while ready.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
            test_run(program, HERE, &bytes)
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| run(packets[1]));
            [run(packets[0]), other.join().unwrap()]
        })
    }

    /// Runs a program on a packet that was received by `received_by`; the verdict, and the packet that comes out.
    pub fn run(&mut self, program: &str, received_by: u32, packet: &Packet) -> (i32, Vec<u8>) {
        let program: &SchedClassifier = self.object.program(program).unwrap().try_into().unwrap();
        test_run(program, received_by, &packet.bytes())
    }

    /// The same for octets that are no packet of this language.
    pub fn run_bytes(&mut self, program: &str, received_by: u32, bytes: &[u8]) -> (i32, Vec<u8>) {
        let program: &SchedClassifier = self.object.program(program).unwrap().try_into().unwrap();
        test_run(program, received_by, bytes)
    }

    /// A pod's packet: the verdict and the whole packet are as stated.
    #[track_caller]
    pub fn enters(&mut self, packet: &Packet, verdict: i32, wanted: &Packet) {
        let (got, out) = self.run("from_pod", HERE, packet);
        assert_eq!(got, verdict, "{packet}");
        assert_same(&wanted.bytes(), &out);
    }

    /// A pod's packet is dropped under `reason`, and counted once.
    #[track_caller]
    pub fn drops(&mut self, packet: &Packet, reason: Counter) {
        let before = self.counted(reason);
        let (got, _) = self.run("from_pod", HERE, packet);
        assert_eq!(got, SHOT, "{packet}");
        assert_eq!(self.counted(reason), before + 1, "{packet}");
    }
}

/// Gives the calling thread a network namespace whose loopback device has the node's MAC, as an uplink would: the kernel tells
/// by it which packets of a test run are for the node.
fn own_namespace() {
    // SAFETY: the thread shares nothing of its network namespace that it would miss.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a test may have a network namespace");
    let mac = NODE_1.mac.map(|octet| format!("{octet:02x}")).join(":");
    let done = Command::new("ip").args(["link", "set", "lo", "address", &mac, "up"]).status();
    assert!(done.expect("ip is installed").success());
}

fn test_run(program: &SchedClassifier, received_by: u32, bytes: &[u8]) -> (i32, Vec<u8>) {
    let mut out = vec![0; 4096];
    let mut context = [0u8; 192];
    // `struct __sk_buff` (include/uapi/linux/bpf.h): ingress_ifindex, ifindex.
    context[36..40].copy_from_slice(&received_by.to_ne_bytes());
    context[40..44].copy_from_slice(&HERE.to_ne_bytes());
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(bytes),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: 1,
            ..TestRunOptions::default()
        })
        .unwrap();
    out.truncate(result.data_size_out as usize);
    (result.return_value.cast_signed(), out)
}
