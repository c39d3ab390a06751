//! Make room in full maps.
//!
//! What has ended stays until its place is wanted, or for a day: nothing watches. (By the low bits of jiffies, what ended weeks
//! ago would seem alive again.) When a map is full, all that has ended is removed at once;
//! if that is little, so is what carries no data (`mapping_life::may_give_way`). A search through both maps takes some
//! milliseconds, so it is followed by a pause of ten times its length, as in `rebuild`.

use core::ffi::c_void;
use core::ptr::{from_mut, from_ref};

use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::mapping_life::{Stage, has_expired, may_give_way};
use netplug_common::maps::nat::Mapping;
use netplug_common::tuple::Tuple;

use crate::mapping::Clock;
use crate::packet::Header;
use crate::{maps, report};

/// So few are little: the next search would come at once.
const LITTLE: u64 = 1_024;

/// Nanoseconds after which what has ended is removed from maps that are not full.
const DAY: i64 = 24 * 3_600 * 1_000_000_000;

/// Whether the last search was longer ago than a day.
#[inline(always)]
pub fn is_sweep_due<V: Header>() -> bool {
    let Some(state) = maps::nat_state::<V>() else { return false };
    // SAFETY: the helper takes nothing; the verifier knows the pointer to be a value's.
    unsafe { helpers::bpf_ktime_get_ns() as i64 - (*state).sweep_after as i64 > DAY }
}

/// Longer than a search takes, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// What a search goes by, and finds.
struct Sweep {
    clock: Clock,
    /// Whether what has not ended may be removed.
    is_urgent: bool,
    /// Counts what is removed: in a map, since the verifier would follow each number that it can be.
    removed: *mut u64,
}

/// Removes mappings that nobody misses: where the map is full also such as have not ended. `false`: none, or the last time was
/// too recent.
#[inline(always)]
pub fn sweep<V: Header>(is_full: bool) -> bool {
    let (Some(config), Some(state)) = (maps::config(), maps::nat_state::<V>()) else {
        return false;
    };
    // SAFETY: takes nothing.
    let began = unsafe { helpers::bpf_ktime_get_ns() };
    // SAFETY: the verifier knows the pointer to be a value's. Two CPUs at once only do the work twice.
    unsafe {
        if (began as i64) < (*state).sweep_after as i64 {
            return false;
        }
        // Of others, none begins while this one is at work.
        (*state).sweep_after = began + SECOND;
    }
    // SAFETY: as above.
    let removed = unsafe { &raw mut (*state).removed };
    let mut sweep = Sweep { clock: Clock::outward(config), is_urgent: false, removed };
    // SAFETY: as above.
    unsafe {
        removed.write(0);
        sweep.through::<V>();
        if is_full && removed.read_volatile() < LITTLE {
            sweep.is_urgent = true;
            sweep.through::<V>();
        }
        let ended = helpers::bpf_ktime_get_ns();
        (*state).sweep_after = ended + 10 * (ended - began);
        let removed = removed.read_volatile();
        report::count_many(Counter::GaveWay, removed);
        removed > 0
    }
}

impl Sweep {
    #[inline(always)]
    fn through<V: Header>(&mut self) {
        // SAFETY: the callbacks have the signature that the helper calls (since Linux 5.13), and get this very struct.
        unsafe {
            helpers::bpf_for_each_map_elem(
                from_ref(V::nat_in()).cast::<c_void>().cast_mut(),
                look_in::<V> as *mut c_void,
                from_mut(self).cast(),
                0,
            );
            helpers::bpf_for_each_map_elem(
                from_ref(V::nat_out()).cast::<c_void>().cast_mut(),
                look_out::<V> as *mut c_void,
                from_mut(self).cast(),
                0,
            );
        }
    }

    #[inline(always)]
    fn is_dispensable<V: Header>(&self, tuple: &Tuple<V>, mapping: &Mapping<V>) -> bool {
        let now = self.clock.low();
        if has_expired(mapping.expires_at, now) {
            return true;
        }
        let stage = Stage::of(mapping.stage);
        // A second more than is left has not passed: rounded up, so that nothing gives way too soon.
        let left = self.clock.seconds_until(mapping.expires_at) + 1;
        self.is_urgent && may_give_way(self.clock.lifetimes(), tuple.protocol, stage, left)
    }
}

extern "C" fn look_in<V: Header>(
    _map: *mut c_void,
    tuple: *const Tuple<V>,
    mapping: *const Mapping<V>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: the helper passes a key and a value of NAT_IN, and what `through` gave it.
    let (tuple, mapping, sweep) = unsafe { (&*tuple, &*mapping, &mut *sweep) };
    if sweep.is_dispensable(tuple, mapping) && V::nat_in().remove(tuple).is_ok() {
        // SAFETY: it points into a map.
        unsafe { *sweep.removed += 1 };
    }
    0
}

extern "C" fn look_out<V: Header>(
    _map: *mut c_void,
    tuple: *const Tuple<V>,
    mapping: *const Mapping<V>,
    sweep: *mut Sweep,
) -> i64 {
    // SAFETY: as above, of NAT_OUT.
    let (tuple, mapping, sweep) = unsafe { (&*tuple, &*mapping, &mut *sweep) };
    if sweep.is_dispensable(tuple, mapping) && V::nat_out().remove(tuple).is_ok() {
        // SAFETY: it points into a map.
        unsafe { *sweep.removed += 1 };
    }
    0
}
