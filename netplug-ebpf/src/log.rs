//! For the developer's eye: what the miss paths do, by `aya-log`. The level is a constant of the load, off by
//! default, and what is off is removed by the verifier; the hit path says nothing at any level.

use aya_ebpf::programs::TcContext;
use aya_log_ebpf::{debug, info, trace};
use netplug_common::counter::Counter;
use netplug_common::ip::IpVersion;
use netplug_common::tuple::Tuple;

use crate::skb::Skb;

/// A packet was dropped. Out of line, since every program's frame would hold its arguments.
#[inline(never)]
pub fn dropped(skb: Skb, reason: Counter) {
    info!(TcContext::new(skb.0), "drop: reason {} on interface {}", reason as u32, skb.ifindex());
}

/// A flow was learned.
#[inline(always)]
pub fn learned<V: IpVersion>(skb: Skb, entered: &Tuple<V>, left: &Tuple<V>, entered_by: u32) {
    debug!(
        TcContext::new(skb.0),
        "learn: protocol {} ports {} to {} by {}, leaves with ports {} to {} by {}",
        entered.protocol,
        entered.source_port.get(),
        entered.destination_port.get(),
        entered_by,
        left.source_port.get(),
        left.destination_port.get(),
        skb.ifindex()
    );
}

/// A packet left by a port of the uplink's. Out of line, as `dropped`.
#[inline(never)]
pub fn masqueraded(skb: Skb, port: u16) {
    debug!(
        TcContext::new(skb.0),
        "masquerade: leaves by port {} on interface {}",
        port,
        skb.ifindex()
    );
}

/// A packet visits the host.
#[inline(always)]
pub fn visits<V: IpVersion>(skb: Skb, tuple: &Tuple<V>) {
    trace!(
        TcContext::new(skb.0),
        "visit: protocol {} ports {} to {} by {}",
        tuple.protocol,
        tuple.source_port.get(),
        tuple.destination_port.get(),
        skb.ifindex()
    );
}
