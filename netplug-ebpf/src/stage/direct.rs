//! Steering `direct`: connections between pod addresses of this node never visit the host.
//!
//! # Which
//! A TCP connection whose first SYN goes to a pod's own address: it can be no answer to a service's client. Both
//! directions are entered then and there.
//! # Which not
//! UDP: a datagram to a pod may be an answer that the host must un-DNAT, and only the host knows; it visits once,
//! as with `learn`. A lost entry is a miss, and a miss visits.
//! # Twins
//! The host does not know of direct connections, so it may give a service connection the tuple of one.

use aya_ebpf::bindings::BPF_ANY;
use netplug_common::counter::Counter;
use netplug_common::decide::opening::is_first;
use netplug_common::maps::config::{Config, STEERING_DIRECT};
use netplug_common::maps::flow::{CLOSED, DIRECT, Flow, SAME_BRIDGE, UNTOUCHED};
use netplug_common::maps::port::PodPort;
use netplug_common::tuple::{TCP, Tuple};

use crate::maps;
use crate::packet::{Header, Packet};
use crate::skb::Skb;

/// Enters a connection between two pods of this node; `None` if the packet does not begin one.
#[inline(always)]
pub fn open<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    port: &PodPort,
    config: &Config,
) -> Option<()> {
    if config.steering != STEERING_DIRECT
        || !packet.is_plain()
        || packet.tuple.protocol != TCP
        || !is_first(packet.tcp_flags)
    {
        return None;
    }
    let endpoint = maps::endpoint::<V>(&packet.tuple.destination)?;
    let there = maps::port(endpoint.ifindex)?;
    let here = skb.ifindex();
    if endpoint.ifindex == here {
        return None;
    }
    let enter = |tuple: Tuple<V>, from: u32, by: u32, to: &PodPort| {
        let mtu = match skb.check_mtu(by, 0) {
            Ok(mtu) | Err(mtu) if mtu != 0 => mtu,
            _ => return None,
        };
        let same_bridge =
            if port.bridge != 0 && port.bridge == there.bridge { SAME_BRIDGE } else { 0 };
        let flow = Flow {
            tag: tuple.tag(),
            revisit_at: u64::MAX,
            left: tuple,
            entered_by: from,
            leaves_by: by,
            epoch: config.epoch,
            flags: DIRECT | UNTOUCHED | same_bridge,
            mtu,
            address_delta: 0,
            port_delta: 0,
            destination_mac: to.pod_mac,
            source_mac: to.gateway_mac,
        };
        V::flows().insert(&tuple, &flow, u64::from(BPF_ANY)).ok()
    };
    enter(packet.tuple.reversed(), endpoint.ifindex, here, port)?;
    enter(packet.tuple, here, endpoint.ifindex, there)
}

/// With `direct`, refuses a translated connection that would take a live direct one's tuple, and forgets one
/// that has closed.
#[inline(always)]
pub fn check_twin<V: Header>(packet: &Packet<V>, config: &Config) -> Result<(), Counter> {
    if config.steering != STEERING_DIRECT || !is_first(packet.tcp_flags) {
        return Ok(());
    }
    let Some(cached) = V::flows().get_ptr(&packet.tuple) else { return Ok(()) };
    // SAFETY: the verifier knows the pointer to be a value's.
    let flags = unsafe { (*cached).flags };
    if flags & DIRECT == 0 {
        return Ok(());
    }
    if flags & CLOSED == 0 {
        return Err(Counter::TupleInUse);
    }
    // Content if another CPU was first.
    let _ = V::flows().remove(&packet.tuple);
    let _ = V::flows().remove(&packet.tuple.reversed());
    Ok(())
}
