//! Remember a packet that visits the host, to know it again when it leaves.
//!
//! Remembered: TCP and UDP for one host that could be learned, and calls from outside to a pod's own address, whatever they
//! are, by which masquerade knows the answers. Not remembered: openings and closings of other flows (they are never learned
//! from), flows that came back from none of their last visits, until their next run, and new ones while the cache can keep no
//! more (`decide/room.rs`).

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated as helpers;
use netplug_common::counter::Counter;
use netplug_common::decide::identity::Identity;
use netplug_common::decide::opening::{Moment, voids};
use netplug_common::decide::retry::{Note, note};
use netplug_common::decide::room;
use netplug_common::hash;
use netplug_common::ip::Address;
use netplug_common::maps::config::{Config, LEARN_TCP, STEERING_ALWAYS};
use netplug_common::maps::visit::Visit;
use netplug_common::tuple::{TCP, Tuple};

use crate::packet::{Header, Kind, Packet};
use crate::report;
use crate::skb::Skb;
use crate::{log, maps};

/// Notes a packet that `entered` as such and is handed to the host as `packet`, and makes it carry its hash.
#[inline(always)]
pub fn remember<V: Header>(skb: Skb, entered: &Tuple<V>, packet: &Packet<V>, config: &Config) {
    void_unseen(entered, packet);
    let is_noted = can_be_learned(packet, config)
        && try_to_note(skb, entered, packet, config, false).is_some();
    report::count(skb, if is_noted { Counter::Visit } else { Counter::Aside });
}

/// Notes a call from outside to a pod's own address, which nothing of ours has translated: each of its packets, since the
/// host may let the next one through.
#[inline(always)]
pub fn remember_call<V: Header>(skb: Skb, packet: &Packet<V>, config: &Config) {
    void_unseen(&packet.tuple, packet);
    let can_be_learned = can_be_learned(packet, config);
    let is_noted =
        packet.has_ports() && try_to_note(skb, &packet.tuple, packet, config, true).is_some();
    let is_visit = is_noted && can_be_learned;
    report::count(skb, if is_visit { Counter::Visit } else { Counter::Aside });
}

/// An opening that has options was not looked for in the cache, and voids its entry all the same.
#[inline(always)]
fn void_unseen<V: Header>(entered: &Tuple<V>, packet: &Packet<V>) {
    if packet.kind == Kind::Optioned && voids(packet.moment()) {
        // Content if nothing is there.
        let _ = V::flows().remove(entered);
    }
}

/// Whether a flow may be learned from a packet of its.
#[inline(always)]
pub fn can_be_learned<V: Header>(packet: &Packet<V>, config: &Config) -> bool {
    config.steering != STEERING_ALWAYS
        && packet.is_plain()
        && matches!(packet.moment(), Moment::Underway)
        && (packet.tuple.protocol != TCP || config.flags & LEARN_TCP != 0)
        && packet.tuple.destination.is_for_one_host()
}

/// Whether a packet that leaves is the one that visited. `may_be_bridged`: it may have taken no hop. (br_netfilter has frames that
/// the host's NAT changed go on so, towards a pod.)
#[inline(always)]
pub fn is_visits<V: Header>(
    skb: Skb,
    packet: &Packet<V>,
    visit: &Visit<V>,
    may_be_bridged: bool,
) -> bool {
    let Some(mut identity) = packet.identity(skb, packet.hops) else { return false };
    if visit.is_of(&identity) {
        return true;
    }
    identity.length = identity.length.wrapping_sub(Identity::HOP);
    may_be_bridged && visit.is_of(&identity)
}

#[inline(always)]
fn try_to_note<V: Header>(
    skb: Skb,
    entered: &Tuple<V>,
    packet: &Packet<V>,
    config: &Config,
    is_call: bool,
) -> Option<()> {
    // SAFETY: takes nothing.
    let now = unsafe { helpers::bpf_jiffies64() };
    if !is_call && is_crowded(entered, config, now) {
        report::count(skb, Counter::Crowded);
        // Where it leaves, the place where no visit is takes no time to look at: it is the same for all of them.
        skb.clear_hash();
        return None;
    }
    let hash = hash::of(&packet.tuple, hash::key_of_epoch(config.hash_key, config.epoch));
    // SAFETY: the verifier knows the pointer to be a value's; the scratch is this CPU's.
    let visit = unsafe { &mut (*V::scratch()?).visit };
    visit.noted_at = now;
    visit.entered = *entered;
    // As it leaves, forwarding takes one hop.
    visit.identity = packet.identity(skb, packet.hops.wrapping_sub(1))?;
    visit.entered_by = skb.ifindex();
    visit.tries = 1;
    visit.epoch = config.epoch;
    visit.seal = visit.digest();
    match V::visits().get_ptr_mut(hash) {
        Some(last) if is_same_flow(last, visit) => {
            // SAFETY: as in `is_same_flow`; readers check the seal, so a write that they see half of is not believed.
            unsafe {
                match note((*last).noted_at, (*last).tries, now, config.revisit_jiffies) {
                    Note::No if !is_call => return None,
                    Note::No | Note::Anew => {}
                    Note::Again => {
                        visit.noted_at = (*last).noted_at;
                        visit.tries = (*last).tries + 1;
                    }
                }
                *last = *visit;
            }
        }
        _ => V::visits().insert(hash, &*visit, u64::from(BPF_ANY)).ok()?,
    }
    skb.set_hash(hash);
    log::visits(skb, entered);
    Some(())
}

/// Whether a flow is new, and the cache can keep no more.
#[inline(always)]
fn is_crowded<V: Header>(entered: &Tuple<V>, config: &Config, now: u64) -> bool {
    let Some(state) = maps::flow_state::<V>() else { return false };
    // SAFETY: the verifier knows the pointer to be a value's.
    let taken_until = unsafe { (*state).taken_until };
    room::is_taken(taken_until, now, config.jiffies_per_second)
        && V::flows().get_ptr(entered).is_none()
}

#[inline(always)]
fn is_same_flow<V: Header>(last: *const Visit<V>, visit: &Visit<V>) -> bool {
    // SAFETY: the verifier knows the pointer to be a value's.
    unsafe { (*last).entered == visit.entered && (*last).entered_by == visit.entered_by }
}
