//! Rebuild NAT_IN from NAT_OUT.
//!
//! An answer whose half in NAT_IN is gone cannot tell whose it is, and a pod that waits for it sends nothing by
//! which it would be healed. So the other half is searched: all of them, once, and each missing half is written.
//! Anybody outside can send packets that look like such answers, so a search is followed by a pause of ten times its
//! length: it never takes more than a tenth of a CPU. (A full map takes some milliseconds.)

use core::ffi::c_void;
use core::ptr::{from_mut, from_ref};

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated as helpers;
use netplug_common::decide::mapping_life::has_expired;
use netplug_common::maps::nat::{MOVED, Mapping, TRANSLATED};
use netplug_common::tuple::Tuple;

use crate::mapping::{Clock, answers_to};
use crate::maps;
use crate::packet::Header;

/// Writes every half of NAT_IN that NAT_OUT knows of and that is missing. `false`: not now, the last time was too
/// recent.
#[inline(always)]
pub fn rebuild<V: Header>() -> bool {
    let (Some(state), Some(config)) = (maps::nat_state::<V>(), maps::config()) else {
        return false;
    };
    // SAFETY: takes nothing.
    let began = unsafe { helpers::bpf_ktime_get_ns() };
    // SAFETY: the verifier knows the pointer to be a value's. Two CPUs at once only do the work twice.
    if began < unsafe { (*state).rebuild_after } {
        return false;
    }
    let mut now = Clock::inward(config).low();
    // SAFETY: the callback has the signature that the helper calls (since Linux 5.13).
    unsafe {
        helpers::bpf_for_each_map_elem(
            from_ref(V::nat_out()).cast::<c_void>().cast_mut(),
            write_half::<V> as *mut c_void,
            from_mut(&mut now).cast(),
            0,
        );
        let ended = helpers::bpf_ktime_get_ns();
        (*state).rebuild_after = ended + 10 * (ended - began);
    }
    true
}

extern "C" fn write_half<V: Header>(
    _map: *mut c_void,
    tuple: *const Tuple<V>,
    mapping: *const Mapping<V>,
    now: *const u32,
) -> i64 {
    // SAFETY: the helper passes a key and a value of NAT_OUT, and what `rebuild` gave it. Not copied: the stack is short.
    let (tuple, mapping, now) = unsafe { (&*tuple, &*mapping, *now) };
    let is_there = match mapping.kind {
        TRANSLATED => maps::endpoint::<V>(&tuple.source).is_some(),
        MOVED => true,
        _ => false,
    };
    if is_there && !has_expired(mapping.expires_at, now) {
        let half = Mapping { address: tuple.source, port: tuple.source_port, ..*mapping };
        // There already, or full: nothing to do.
        let _ = V::nat_in().insert(&answers_to(tuple, mapping), &half, u64::from(BPF_NOEXIST));
    }
    0
}
