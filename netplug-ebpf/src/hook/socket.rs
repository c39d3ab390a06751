//! A process of the node's calls a HostPort, by any of the node's addresses, loopback too: it calls the pod instead, and is
//! told, whenever it asks, that it speaks with whom it called.
//!
//! Nothing is translated on the way, so that no packet has a loopback address outside of loopback (`route_localnet`).
//! Hooks run for every process of the machine: those of other network namespaces are left alone.

use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::ip::{Address, IpVersion, Ipv4, Ipv6, V4, V6};
use netplug_common::maps::config::HOST_PORTS;
use netplug_common::maps::host_port::{Asked, HostPort, Peer};
use netplug_common::tuple::Port;

use crate::maps::{self, Maps};

/// The context of a socket hook.
#[derive(Clone, Copy)]
pub struct Call(pub *mut bpf_sock_addr);

/// How an address stands in a call.
pub trait Form {
    /// Its family.
    type Version: Maps;
    /// Reads the address; `None` where it stands in another form.
    fn read(call: Call) -> Option<<Self::Version as IpVersion>::Address>;
    /// Writes another.
    fn write(call: Call, address: &<Self::Version as IpVersion>::Address);
}

/// IPv4, by a socket of IPv4.
pub struct Plain4;
/// IPv4, by a socket of IPv6 (RFC 4291 §2.5.5.2).
pub struct Mapped4;
/// IPv6.
pub struct Plain6;

macro_rules! field {
    ($call:expr, $($name:tt)*) => {
        // SAFETY: the context is valid for the whole run of the program. Volatile, so that each field is one access.
        unsafe { core::ptr::read_volatile(&raw const (*$call.0).$($name)*) }
    };
}

macro_rules! set_field {
    ($call:expr, $value:expr, $($name:tt)*) => {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*$call.0).$($name)*, $value) }
    };
}

const MAPPED: u32 = 0xffffu32.to_be();

impl Form for Plain4 {
    type Version = V4;

    #[inline(always)]
    fn read(call: Call) -> Option<Ipv4> {
        Some(Ipv4 { octets: field!(call, user_ip4).to_ne_bytes() })
    }

    #[inline(always)]
    fn write(call: Call, address: &Ipv4) {
        set_field!(call, u32::from_ne_bytes(address.octets), user_ip4);
    }
}

impl Form for Mapped4 {
    type Version = V4;

    #[inline(always)]
    fn read(call: Call) -> Option<Ipv4> {
        let is_mapped = field!(call, user_ip6[0]) == 0
            && field!(call, user_ip6[1]) == 0
            && field!(call, user_ip6[2]) == MAPPED;
        is_mapped.then(|| Ipv4 { octets: field!(call, user_ip6[3]).to_ne_bytes() })
    }

    #[inline(always)]
    fn write(call: Call, address: &Ipv4) {
        set_field!(call, u32::from_ne_bytes(address.octets), user_ip6[3]);
    }
}

impl Form for Plain6 {
    type Version = V6;

    #[inline(always)]
    fn read(call: Call) -> Option<Ipv6> {
        let words = [
            field!(call, user_ip6[0]),
            field!(call, user_ip6[1]),
            field!(call, user_ip6[2]),
            field!(call, user_ip6[3]),
        ];
        Some(Ipv6 { octets: bytemuck::cast(words) })
    }

    #[inline(always)]
    fn write(call: Call, address: &Ipv6) {
        let words: [u32; 4] = bytemuck::cast(address.octets);
        set_field!(call, words[0], user_ip6[0]);
        set_field!(call, words[1], user_ip6[1]);
        set_field!(call, words[2], user_ip6[2]);
        set_field!(call, words[3], user_ip6[3]);
    }
}

/// Has a call of a HostPort go to its pod (`connect`, `sendmsg`).
#[inline(always)]
pub fn call<F: Form>(call: Call) {
    let Some(address) = F::read(call) else { return };
    if !is_ours(call) {
        return;
    }
    let asked = Asked::<F::Version> { address, port: port(call), _pad: [0; 6] };
    let mut wanted = HostPort::<F::Version> {
        address,
        port: asked.port,
        protocol: field!(call, protocol) as u8,
        _pad: [0; 5],
    };
    let target = match maps::host_port(&wanted) {
        Some(target) => target,
        None => {
            wanted.address = bytemuck::Zeroable::zeroed();
            let Some(target) = maps::host_port(&wanted) else { return };
            if !address.is_loopback() && !maps::is_local::<F::Version>(&address) {
                return;
            }
            target
        }
    };
    let (address, port) = (target.address, target.port);
    let peer = Peer { cookie: cookie(call), address, port, _pad: [0; 6] };
    // A full map displaces; a socket that is not found is told of the pod.
    let _ = F::Version::sockets().insert(&peer, &asked, u64::from(BPF_ANY));
    F::write(call, &address);
    set_port(call, port);
}

/// Tells a process that it speaks with whom it called (`recvmsg`, `getpeername`).
#[inline(always)]
pub fn tell<F: Form>(call: Call) {
    let Some(address) = F::read(call) else { return };
    if !is_ours(call) {
        return;
    }
    let peer = Peer::<F::Version> { cookie: cookie(call), address, port: port(call), _pad: [0; 6] };
    // SAFETY: a value that is overwritten meanwhile is the same socket's.
    let Some(asked) = (unsafe { F::Version::sockets().get(&peer) }) else { return };
    let (address, port) = (asked.address, asked.port);
    F::write(call, &address);
    set_port(call, port);
}

/// Whether a process of the node's own calls, and there are HostPorts.
#[inline(always)]
fn is_ours(call: Call) -> bool {
    let Some(config) = maps::config() else { return false };
    config.flags & HOST_PORTS != 0
        // SAFETY: the context is valid.
        && unsafe { helpers::bpf_get_netns_cookie(call.0.cast()) } == config.netns_cookie
}

#[inline(always)]
fn cookie(call: Call) -> [u8; 8] {
    // SAFETY: the context is valid.
    unsafe { helpers::bpf_get_socket_cookie(call.0.cast()) }.to_ne_bytes()
}

#[inline(always)]
fn port(call: Call) -> Port {
    let [a, b, ..] = field!(call, user_port).to_ne_bytes();
    Port { octets: [a, b] }
}

#[inline(always)]
fn set_port(call: Call, port: Port) {
    let [a, b] = port.octets;
    set_field!(call, u32::from_ne_bytes([a, b, 0, 0]), user_port);
}
