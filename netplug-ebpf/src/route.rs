//! Where the kernel would route a packet that it is handed with nothing but its addresses: what `bpf_redirect_neigh` does
//! with one on the short way.

use core::ptr::from_mut;

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LOOKUP_OUTPUT};
use aya_ebpf::helpers::generated as helpers;
use netplug_common::tuple::Tuple;

use crate::packet::Header;
use crate::packet::ethernet::Mac;
use crate::skb::Skb;

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h), whose unions Rust's bindings do not name.
#[repr(C, align(8))]
pub struct Lookup {
    family: u8,
    protocol: u8,
    source_port: [u8; 2],
    destination_port: [u8; 2],
    /// Given: the packet's length; found: the route's MTU, in bytes (Linux 5.12).
    length: u16,
    ifindex: u32,
    flow_information: u32,
    source: [u64; 2],
    destination: [u64; 2],
    vlan: u32,
    source_mac: Mac,
    destination_mac: Mac,
}

/// The MAC of the next hop towards `tuple`'s destination by the device `ifindex`, and the route's MTU in L3 bytes, 0 where the
/// kernel does not tell; `None` where there is no route, or the neighbour is not known. `lookup` is to work on.
#[inline(always)]
pub fn next_hop<V: Header>(
    skb: Skb,
    tuple: &Tuple<V>,
    ifindex: u32,
    lookup: &mut Lookup,
) -> Option<(Mac, u32)> {
    let answer = ask(skb, tuple, ifindex, lookup);
    let mtu = u32::from(lookup.length);
    // A kernel that does not tell leaves what it was asked.
    (answer == 0 && lookup.ifindex == ifindex)
        .then_some((lookup.destination_mac, if mtu > 1 { mtu } else { 0 }))
}

/// Whether `tuple`'s destination has a route by the device `ifindex`.
#[inline(always)]
pub fn leads_by<V: Header>(skb: Skb, tuple: &Tuple<V>, ifindex: u32, lookup: &mut Lookup) -> bool {
    let answer = ask(skb, tuple, ifindex, lookup);
    // For IPv6 the kernel takes another device's route where the wanted one has none.
    (answer == 0 || answer == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH)) && lookup.ifindex == ifindex
}

/// `bpf_fib_lookup`'s answer.
#[inline(always)]
fn ask<V: Header>(skb: Skb, tuple: &Tuple<V>, ifindex: u32, lookup: &mut Lookup) -> i64 {
    *lookup = Lookup {
        family: V::ADDRESS_FAMILY,
        protocol: tuple.protocol,
        // `bpf_redirect_neigh` asks without ports (`__bpf_redirect_neigh_v4`, `_v6`, net/core/filter.c).
        source_port: [0; 2],
        destination_port: [0; 2],
        // Any length that no MTU refuses, and not 0, for which no MTU is told: what is too long, the flow cache finds.
        length: 1,
        ifindex,
        flow_information: V::flow_information(skb),
        source: [0; 2],
        destination: [0; 2],
        vlan: 0,
        source_mac: [0; 6],
        destination_mac: [0; 6],
    };
    // SAFETY: an address is no longer than 16 bytes, and aligned no stricter than to 8. The helper reads and writes the
    // whole of the struct.
    unsafe {
        (&raw mut lookup.source).cast::<V::Address>().write(tuple.source);
        (&raw mut lookup.destination).cast::<V::Address>().write(tuple.destination);
        helpers::bpf_fib_lookup(
            skb.raw(),
            from_mut(lookup).cast(),
            size_of::<Lookup>() as i32,
            BPF_FIB_LOOKUP_OUTPUT,
        )
    }
}
