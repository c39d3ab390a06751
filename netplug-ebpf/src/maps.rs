//! The maps, as the programs see them. What each holds is told in `netplug_common::maps`.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use netplug_common::counter::COUNTERS as COUNTER_COUNT;
use netplug_common::ip::{IpVersion, Ipv4, Ipv6, V4, V6};
use netplug_common::maps as sizes;
use netplug_common::maps::config::{Config, FAST_ADDRESSES};
use netplug_common::maps::counters::Count;
use netplug_common::maps::endpoint::EndpointEntry;
use netplug_common::maps::flow::{Flow, FlowState};
use netplug_common::maps::fragment::{Fate, Fragments, Held};
use netplug_common::maps::host_port::{Asked, HostPort, Peer, Target};
use netplug_common::maps::nat::{Mapping, NatState};
use netplug_common::maps::port::PodPort;
use netplug_common::maps::uplink::UplinkEntry;
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::Tuple;

use crate::route::Lookup;

pub use aya_ebpf::btf_maps::lpm_trie::Key as PrefixKey;

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
static PORTS: HashMap<u32, PodPort, { sizes::PORTS as usize }> = HashMap::new();
#[btf_map]
static UPLINKS: HashMap<u32, UplinkEntry, { sizes::UPLINKS as usize }> = HashMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<Count, { COUNTER_COUNT as usize }> = PerCpuArray::new();
#[btf_map]
static HELD: Array<Held, { sizes::HELD as usize }> = Array::new();
#[btf_map]
static FLOW_STATE: Array<FlowState, 2> = Array::new();
#[btf_map]
static NAT_STATE: Array<NatState, 2> = Array::new();

/// FLOWS4, FLOWS6.
pub type Flows<V> = LruHashMap<Tuple<V>, Flow<V>, { sizes::FLOWS as usize }>;
/// VISITS4, VISITS6.
pub type Visits<V> = LruHashMap<u32, Visit<V>, { sizes::VISITS as usize }>;
/// NAT_OUT4, NAT_OUT6, NAT_IN4, NAT_IN6.
pub type Mappings<V> = HashMap<Tuple<V>, Mapping<V>, { sizes::MAPPINGS as usize }>;
/// HOSTPORTS4, HOSTPORTS6.
pub type HostPorts<V> = HashMap<HostPort<V>, Target<V>, { sizes::HOST_PORTS as usize }>;
/// LOCALS4, LOCALS6. The value says nothing.
pub type Locals<V> = HashMap<<V as IpVersion>::Address, u32, { sizes::LOCALS as usize }>;
/// SOCKETS4, SOCKETS6.
pub type Sockets<V> = LruHashMap<Peer<V>, Asked<V>, { sizes::SOCKETS as usize }>;
/// FRAGMENTS4, FRAGMENTS6.
pub type FragmentFates<V> = LruHashMap<Fragments<V>, Fate<V>, { sizes::FRAGMENTS as usize }>;
/// ENDPOINTS4, ENDPOINTS6.
pub type Endpoints<V> =
    HashMap<<V as IpVersion>::Address, EndpointEntry, { sizes::ENDPOINTS as usize }>;
/// NON_MASQ4, NON_MASQ6. The value says nothing; the kernel wants one of some size.
pub type Prefixes<B> = LpmTrie<B, u32, { sizes::NON_MASQUERADE as usize }>;

/// What the stages work on, too large for the stack. Its own CPU's, and no program interrupts another at TC.
#[repr(C)]
pub struct Scratch<V: IpVersion> {
    /// A copy of the visit.
    pub visit: Visit<V>,
    /// The entry that is being made.
    pub flow: Flow<V>,
    /// Where its packets would be routed.
    pub lookup: Lookup,
    /// A packet's tuple as it entered, while the packet changes.
    pub entered: Tuple<V>,
    /// The tuple that a HostPort's flow has at one end or the other.
    pub tuple: Tuple<V>,
    /// One of the halves of its mapping.
    pub half: Mapping<V>,
    /// The datagram that a fragment is of.
    pub datagram: Fragments<V>,
    /// What becomes of its fragments.
    pub fate: Fate<V>,
}
/// SCRATCH4, SCRATCH6.
pub type Scratches<V> = PerCpuArray<Scratch<V>, 1>;

/// Hands out the statics of a family, which cannot be generic.
pub trait Maps: IpVersion {
    /// Octets of an address, as prefixes have them.
    type Octets: Copy;
    /// FLOWS.
    fn flows() -> &'static Flows<Self>;
    /// VISITS.
    fn visits() -> &'static Visits<Self>;
    /// NAT_OUT.
    fn nat_out() -> &'static Mappings<Self>;
    /// NAT_IN.
    fn nat_in() -> &'static Mappings<Self>;
    /// HOSTPORTS.
    fn host_ports() -> &'static HostPorts<Self>;
    /// LOCALS.
    fn locals() -> &'static Locals<Self>;
    /// SOCKETS.
    fn sockets() -> &'static Sockets<Self>;
    /// FRAGMENTS.
    fn fragments() -> &'static FragmentFates<Self>;
    /// ENDPOINTS.
    fn endpoints() -> &'static Endpoints<Self>;
    /// This CPU's scratch.
    fn scratch() -> Option<*mut Scratch<Self>>;
    /// Whether NON_MASQ has a prefix that covers `address`.
    fn is_exempt(address: &Self::Address) -> bool;
    /// The uplink addresses that CONFIG names.
    fn fast_addresses(config: &Config) -> &[Self::Address; FAST_ADDRESSES];
    /// The address that packets leave by `uplink` as.
    fn masquerade_address(uplink: &UplinkEntry) -> Self::Address;
}

macro_rules! family {
    ($family:ty, $address:ty, $octets:ty, $flows:ident, $visits:ident, $out:ident, $in:ident,
     $host_ports:ident, $locals:ident, $sockets:ident,
     $fragments:ident, $endpoints:ident, $prefixes:ident, $scratch:ident, $fast:ident, $uplink:ident) => {
        #[btf_map]
        static $flows: Flows<$family> = Flows::new();
        #[btf_map]
        static $visits: Visits<$family> = Visits::new();
        #[btf_map]
        static $out: Mappings<$family> = Mappings::new();
        #[btf_map]
        static $in: Mappings<$family> = Mappings::new();
        #[btf_map]
        static $host_ports: HostPorts<$family> = HostPorts::new();
        #[btf_map]
        static $locals: Locals<$family> = Locals::<$family>::new();
        #[btf_map]
        static $sockets: Sockets<$family> = Sockets::new();
        #[btf_map]
        static $fragments: FragmentFates<$family> = FragmentFates::new();
        #[btf_map]
        static $endpoints: Endpoints<$family> = Endpoints::<$family>::new();
        #[btf_map]
        static $prefixes: Prefixes<$octets> = Prefixes::new();
        #[btf_map]
        static $scratch: Scratches<$family> = Scratches::new();

        impl Maps for $family {
            type Octets = $octets;
            #[inline(always)]
            fn flows() -> &'static Flows<Self> {
                &$flows
            }
            #[inline(always)]
            fn visits() -> &'static Visits<Self> {
                &$visits
            }
            #[inline(always)]
            fn nat_out() -> &'static Mappings<Self> {
                &$out
            }
            #[inline(always)]
            fn nat_in() -> &'static Mappings<Self> {
                &$in
            }
            #[inline(always)]
            fn host_ports() -> &'static HostPorts<Self> {
                &$host_ports
            }
            #[inline(always)]
            fn locals() -> &'static Locals<Self> {
                &$locals
            }
            #[inline(always)]
            fn sockets() -> &'static Sockets<Self> {
                &$sockets
            }
            #[inline(always)]
            fn fragments() -> &'static FragmentFates<Self> {
                &$fragments
            }
            #[inline(always)]
            fn endpoints() -> &'static Endpoints<Self> {
                &$endpoints
            }
            #[inline(always)]
            fn scratch() -> Option<*mut Scratch<Self>> {
                $scratch.get_ptr_mut(0)
            }
            #[inline(always)]
            fn is_exempt(address: &$address) -> bool {
                let bits = 8 * size_of::<$octets>() as u32;
                $prefixes.get(&PrefixKey::new(bits, address.octets)).is_some()
            }
            #[inline(always)]
            fn fast_addresses(config: &Config) -> &[$address; FAST_ADDRESSES] {
                &config.$fast
            }
            #[inline(always)]
            fn masquerade_address(uplink: &UplinkEntry) -> $address {
                uplink.$uplink
            }
        }
    };
}

family!(
    V4, Ipv4, [u8; 4], FLOWS4, VISITS4, NAT_OUT4, NAT_IN4, HOSTPORTS4, LOCALS4, SOCKETS4,
    FRAGMENTS4, ENDPOINTS4, NON_MASQ4, SCRATCH4, uplinks4, address4
);
family!(
    V6, Ipv6, [u8; 16], FLOWS6, VISITS6, NAT_OUT6, NAT_IN6, HOSTPORTS6, LOCALS6, SOCKETS6,
    FRAGMENTS6, ENDPOINTS6, NON_MASQ6, SCRATCH6, uplinks6, address6
);

/// CONFIG. `None` cannot be, but the verifier wants to see it handled.
#[inline(always)]
pub fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The port behind an interface, if it is an endpoint's.
#[inline(always)]
pub fn port(ifindex: u32) -> Option<&'static PodPort> {
    // SAFETY: what the program reads may be replaced under its hands, by userspace: field by field either is right, and an
    // element that is given to another key takes a DEL and an ADD within one run.
    unsafe { PORTS.get(ifindex) }
}

/// The endpoint that an address belongs to.
#[inline(always)]
pub fn endpoint<V: Maps>(address: &V::Address) -> Option<&'static EndpointEntry> {
    // SAFETY: as above.
    unsafe { V::endpoints().get(address) }
}

/// Where a port of the node leads.
#[inline(always)]
pub fn host_port<V: Maps>(wanted: &HostPort<V>) -> Option<&'static Target<V>> {
    // SAFETY: as above.
    unsafe { V::host_ports().get(wanted) }
}

/// Whether an address is an uplink's, or another of the node's that userspace has told of.
#[inline(always)]
pub fn is_nodes<V: Maps>(config: &Config, address: &V::Address) -> bool {
    V::fast_addresses(config).contains(address) || is_local::<V>(address)
}

/// Whether an address is in LOCALS.
#[inline(always)]
pub fn is_local<V: Maps>(address: &V::Address) -> bool {
    // SAFETY: as above.
    unsafe { V::locals().get(address) }.is_some()
}

/// The uplink that an interface is.
#[inline(always)]
pub fn uplink(ifindex: u32) -> Option<&'static UplinkEntry> {
    // SAFETY: as above.
    unsafe { UPLINKS.get(ifindex) }
}

/// Whether an address is of the pod behind `port`, by the interface `ifindex`, which is that, or by another of its.
#[inline(always)]
pub fn is_pods<V: Maps>(address: &V::Address, ifindex: u32, port: &PodPort) -> bool {
    let Some(endpoint) = endpoint::<V>(address) else { return false };
    endpoint.ifindex == ifindex || is_of_pod(endpoint.ifindex, port)
}

/// Whether another interface is the same pod's. Out of line: few packets are asked about.
#[inline(never)]
fn is_of_pod(ifindex: u32, here: &PodPort) -> bool {
    port(ifindex).is_some_and(|other| other.pod == here.pod)
}

/// This CPU's share of a counter.
#[inline(always)]
pub fn counter(number: u32) -> Option<*mut Count> {
    COUNTERS.get_ptr_mut(number)
}

/// A place for a frame.
#[inline(always)]
pub fn held(place: u32) -> Option<*mut Held> {
    HELD.get_ptr_mut(place)
}

/// A family's share of FLOW_STATE.
#[inline(always)]
pub fn flow_state<V: IpVersion>() -> Option<*mut FlowState> {
    FLOW_STATE.get_ptr_mut(u32::from(V::ADDRESS_FAMILY != V4::ADDRESS_FAMILY))
}

/// A family's share of NAT_STATE.
#[inline(always)]
pub fn nat_state<V: IpVersion>() -> Option<*mut NatState> {
    NAT_STATE.get_ptr_mut(u32::from(V::ADDRESS_FAMILY != V4::ADDRESS_FAMILY))
}
