//! Steering `direct`: connections between pod addresses of this node never visit the host.
//!
//! # Which
//! A TCP connection whose first SYN goes to a pod's own address: it can be no answer to a service's client. Both
//! directions are entered then and there.
//! # Which not
//! UDP: a datagram to a pod may be an answer that the host must un-DNAT, and only the host knows; it visits once,
//! as with `learn`. A lost entry is a miss, and a miss visits.
//! Nor a connection whose tuple the host has given another: the cache tells, if it has not lost it. Nor one by the address of another
//! interface of the pod's.
//! # Twins
//! The host does not know of direct connections, so it may give a service connection the tuple of one. That connection is
//! refused as long as the direct one lives: neither both its sides have closed, nor one reset it, nor was it silent for long.
//! The other way round, an opening of the tuple of one that the host knows visits, and the host finds it another port.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated as helpers;
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
    let answers = packet.tuple.reversed();
    // By the address of another interface of the pod's, answers would leave by that.
    let is_own = maps::endpoint::<V>(&packet.tuple.source)?.ifindex == here;
    if !is_own
        || endpoint.ifindex == here
        || is_known_to_host(&packet.tuple)
        || is_known_to_host(&answers)
    {
        return None;
    }
    // SAFETY: takes nothing.
    let now = unsafe { helpers::bpf_jiffies64() };
    let enter = |tuple: Tuple<V>, from: u32, by: u32, to: &PodPort| {
        let mtu = match skb.check_mtu(by, 0) {
            Ok(mtu) | Err(mtu) if mtu != 0 => mtu,
            _ => return None,
        };
        let same_bridge =
            if port.bridge != 0 && port.bridge == there.bridge { SAME_BRIDGE } else { 0 };
        let flow = Flow {
            tag: tuple.tag(),
            revisit_at: now + config.revisit_jiffies,
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
    enter(answers, endpoint.ifindex, here, port)?;
    enter(packet.tuple, here, endpoint.ifindex, there)
}

/// Whether the cache has a flow of that tuple from the host, which then is to choose another port for one of the two.
#[inline(always)]
fn is_known_to_host<V: Header>(tuple: &Tuple<V>) -> bool {
    // SAFETY: the verifier knows the pointer to be a value's; a torn flag costs a visit.
    V::flows().get_ptr(tuple).is_some_and(|flow| unsafe { (*flow).flags } & DIRECT == 0)
}

/// With `direct`, refuses a connection of the host's that would take a live direct one's tuple, and forgets one that has
/// closed, or that nobody has used for long. Its own tuple it holds from now on.
#[inline(always)]
pub fn check_twin<V: Header>(packet: &Packet<V>, config: &Config) -> Result<(), Counter> {
    if config.steering != STEERING_DIRECT || !is_first(packet.tcp_flags) {
        return Ok(());
    }
    let answers = packet.tuple.reversed();
    if is_live(&packet.tuple, config) || is_live(&answers, config) {
        return Err(Counter::TupleInUse);
    }
    forget(&packet.tuple);
    forget(&answers);
    hold(packet, &answers);
    Ok(())
}

/// Has the cache know of a connection that the host gave a pod of this node, until the first of its answers is learned: a void
/// entry, which no packet follows, and by which no direct connection takes the tuple.
#[inline(always)]
fn hold<V: Header>(packet: &Packet<V>, answers: &Tuple<V>) {
    let Some(client) = maps::endpoint::<V>(&packet.tuple.source) else { return };
    let Some(scratch) = V::scratch() else { return };
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's. A flow is plain old data.
    let flow = unsafe {
        core::ptr::write_bytes(&raw mut (*scratch).flow, 0, 1);
        &mut (*scratch).flow
    };
    flow.tag = answers.tag();
    // With whose pod it goes.
    flow.leaves_by = client.ifindex;
    // Content if its answers are known already.
    let _ = V::flows().insert(answers, &*flow, u64::from(BPF_NOEXIST));
}

#[inline(always)]
fn is_live<V: Header>(tuple: &Tuple<V>, config: &Config) -> bool {
    let Some(cached) = V::flows().get_ptr(tuple) else { return false };
    // SAFETY: takes nothing.
    let now = unsafe { helpers::bpf_jiffies64() };
    // SAFETY: the verifier knows the pointer to be a value's.
    let (flags, revisit_at) = unsafe { ((*cached).flags, (*cached).revisit_at) };
    flags & DIRECT != 0 && flags & CLOSED == 0 && !is_stale(revisit_at, now, config)
}

#[inline(always)]
fn forget<V: Header>(tuple: &Tuple<V>) {
    let Some(cached) = V::flows().get_ptr(tuple) else { return };
    // SAFETY: the verifier knows the pointer to be a value's.
    if unsafe { (*cached).flags } & DIRECT != 0 {
        // Content if another CPU was first.
        let _ = V::flows().remove(tuple);
    }
}

/// Whether a direct entry has not been used for a long while: as many times `revisit` as make ten minutes by default.
#[inline(always)]
fn is_stale(revisit_at: u64, now: u64, config: &Config) -> bool {
    now > revisit_at && now - revisit_at > 30 * config.revisit_jiffies
}
