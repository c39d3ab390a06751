//! What is known of a flow, for errors that quote it: nothing is put off, healed or claimed.

use netplug_common::decide::mapping_life::has_expired;
use netplug_common::maps::nat::{HOST_PORT, IDENTITY, MOVED, Mapping, TRANSLATED};
use netplug_common::tuple::{Port, Tuple};

use super::Clock;
use crate::maps;
use crate::packet::Header;

/// To whom, and to which port, answers of the tuple `answers` go; `None` where they are nobody's that is known.
#[inline(always)]
pub fn translation_in<V: Header>(answers: &Tuple<V>, clock: &Clock) -> Option<(V::Address, Port)> {
    let half = V::nat_in().get_ptr(answers)?;
    // SAFETY: the verifier knows the pointer to be a value's.
    let Mapping { kind, expires_at, address, port, .. } = unsafe { *half };
    let is_there = match kind {
        TRANSLATED | HOST_PORT => maps::endpoint::<V>(&address).is_some(),
        MOVED => true,
        _ => false,
    };
    (is_there && !has_expired(expires_at, clock.low())).then_some((address, port))
}

/// Whether the flow in which a pod sends `sent` has a translation that has not ended.
#[inline(always)]
pub fn is_translated<V: Header>(sent: &Tuple<V>, clock: &Clock) -> bool {
    let Some(half) = V::nat_out().get_ptr(sent) else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    unsafe { (*half).kind == TRANSLATED && !has_expired((*half).expires_at, clock.low()) }
}

/// How a pod's flow leaves.
pub enum Out<V: Header> {
    /// By that address and port.
    As(V::Address, Port),
    /// The same, wherever it leaves: it answers a HostPort's call.
    AsHostPort(V::Address, Port),
    /// As it is.
    AsItIs,
    /// Nothing is known of it.
    Unknown,
}

/// How the flow in which a pod sends `sent` leaves.
#[inline(always)]
pub fn translation_out<V: Header>(sent: &Tuple<V>, clock: &Clock) -> Out<V> {
    let Some(half) = V::nat_out().get_ptr(sent) else { return Out::Unknown };
    // SAFETY: the verifier knows the pointer to be a value's.
    let Mapping { kind, expires_at, address, port, .. } = unsafe { *half };
    match kind {
        _ if has_expired(expires_at, clock.low()) => Out::Unknown,
        TRANSLATED => Out::As(address, port),
        HOST_PORT => Out::AsHostPort(address, port),
        IDENTITY => Out::AsItIs,
        _ => Out::Unknown,
    }
}
