//! What is learned when a packet leaves as `left` that had entered as `entered`.

use crate::decide::due::{revisit_at, revisit_of_datagrams};
use crate::decide::rewrite::deltas;
use crate::ip::IpVersion;
use crate::maps::flow::{ANSWERS, CLOSED, Flow, NEW, SAME_BRIDGE, TO_UPLINK, TOLD, UNTOUCHED};
use crate::maps::visit::Visit;
use crate::tuple::{Tuple, UDP};

/// Where and when a packet leaves that is learned from.
pub struct Leaving {
    /// The interface.
    pub by: u32,
    /// Whether it is an uplink.
    pub to_uplink: bool,
    /// Whether it is a port of the bridge that the packet entered by.
    pub same_bridge: bool,
    /// The hash that the packet carries.
    pub hash: u32,
    /// The time, in jiffies.
    pub now: u64,
    /// [`crate::maps::config::Config::revisit_jiffies`].
    pub revisit: u64,
    /// [`crate::maps::config::Config::jiffies_per_second`].
    pub jiffies_per_second: u64,
}

/// Makes `flow` what the host made of the visit's packet, which leaves as `left`. MTU and MACs are the caller's. The epoch is
/// the visit's: what the host decides on the way belongs to the one that the packet entered in.
#[inline(always)]
pub fn fill<V: IpVersion>(
    flow: &mut Flow<V>,
    visit: &Visit<V>,
    left: &Tuple<V>,
    leaving: &Leaving,
) {
    let change = deltas(&visit.entered, left);
    flow.tag = visit.entered.tag();
    flow.revisit_at = revisit_at(leaving.now, leaving.revisit, leaving.hash);
    flow.left = *left;
    flow.entered_by = visit.entered_by;
    flow.leaves_by = leaving.by;
    flow.epoch = visit.epoch;
    flow.flags = flags(&visit.entered, left, leaving.to_uplink, leaving.same_bridge);
    flow.address_delta = change.addresses;
    flow.port_delta = change.ports;
}

/// Which way a translated flow of datagrams goes, as far as its tuples tell: `Some(true)`, it answers one to a service. Others have
/// an address of the node's, and look the same both ways.
#[inline(always)]
#[must_use]
pub fn answers_service<V: IpVersion>(
    entered: &Tuple<V>,
    left: &Tuple<V>,
    is_nodes: impl Fn(&V::Address) -> bool,
) -> Option<bool> {
    let is_source_same = entered.source == left.source;
    let is_destination_same = entered.destination == left.destination;
    match (is_source_same, is_destination_same) {
        (false, true) if !is_nodes(&left.source) => Some(true),
        (true, false) if !is_nodes(&entered.destination) => Some(false),
        _ => None,
    }
}

/// What else `fill` would say of datagrams, given what is `known` of the flow, and of the flow `back`, which leads back to who sent it:
/// whether they answer that one, and when they ask. `answers_service`: [`answers_service`]'s, if the host translated them.
#[inline(always)]
pub fn fill_datagrams<V: IpVersion>(
    flow: &mut Flow<V>,
    known: Option<&Flow<V>>,
    back: Option<&Flow<V>>,
    answers_service: Option<bool>,
    leaving: &Leaving,
) {
    if flow.left.protocol != UDP {
        return;
    }
    if flow.flags & UNTOUCHED == 0 {
        let is_answer = match (answers_service, known, back) {
            (Some(is_answer), ..) => is_answer,
            // Of a flow as it was before.
            (None, Some(known), _) if known.left == flow.left => known.flags & ANSWERS != 0,
            // Who calls is seen first.
            (None, _, Some(back)) => back.flags & ANSWERS == 0,
            (None, _, None) => false,
        };
        flow.flags |= if is_answer { ANSWERS } else { 0 };
    }
    // conntrack keeps a flow that asks by `revisit` longer, by three seconds at least.
    let is_new = known.is_none_or(|known| {
        !is_same(known, flow) || leaving.now > known.revisit_at + 3 * leaving.jiffies_per_second
    });
    let is_answer = flow.flags & ANSWERS != 0;
    let revisit =
        revisit_of_datagrams(leaving.revisit, leaving.jiffies_per_second, is_answer, is_new);
    flow.revisit_at = revisit_at(leaving.now, revisit, leaving.hash);
    flow.flags |= if is_new { NEW } else { 0 };
}

/// Whether the host decided a flow as it had before: then the entry that is known is refreshed in place.
#[inline(always)]
#[must_use]
pub fn is_same<V: IpVersion>(known: &Flow<V>, flow: &Flow<V>) -> bool {
    known.tag == flow.tag
        && known.left == flow.left
        && known.entered_by == flow.entered_by
        && known.leaves_by == flow.leaves_by
        && known.flags & !(CLOSED | TOLD | NEW) == flow.flags & !NEW
        && known.mtu == flow.mtu
        && known.destination_mac == flow.destination_mac
        && known.source_mac == flow.source_mac
}

/// The flags of the entry. `same_bridge`: it entered and leaves by ports of one bridge. A packet on the same
/// bridge that the host left untouched would, but for netplug, have been switched: its cached way spends no hop.
#[inline(always)]
#[must_use]
pub fn flags<V: IpVersion>(
    entered: &Tuple<V>,
    left: &Tuple<V>,
    to_uplink: bool,
    same_bridge: bool,
) -> u32 {
    let mut flags = 0;
    if to_uplink {
        flags |= TO_UPLINK;
    }
    if entered == left {
        flags |= UNTOUCHED;
        if same_bridge && !to_uplink {
            flags |= SAME_BRIDGE;
        }
    }
    flags
}

/// Whether a translated flow that leaves as `left` contradicts a cached entry for that very tuple, given the
/// cached entry's flags: an untouched one says that `left` is another, direct flow. (A translated one is
/// consistent: it is how the other direction, or the same service, was learned.)
#[inline(always)]
#[must_use]
pub const fn contradicts(learned_flags: u32, cached_flags: u32) -> bool {
    learned_flags & UNTOUCHED == 0 && cached_flags & UNTOUCHED != 0
}

/// Whether what is cached for a flow's answers leads back to who asked as `entered`, given where the cached entry leads to. If
/// not, it is an older flow's, which the host has forgotten.
#[inline(always)]
#[must_use]
pub fn leads_back<V: IpVersion>(entered: &Tuple<V>, cached_left: &Tuple<V>) -> bool {
    *cached_left == entered.reversed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::{Ipv4, V4};
    use crate::tuple::{Port, UDP};
    use bytemuck::Zeroable;

    fn tuple(destination: u8) -> Tuple<V4> {
        Tuple {
            source: Ipv4 { octets: [10, 0, 0, 1] },
            destination: Ipv4 { octets: [10, 0, 0, destination] },
            source_port: Port::new(1),
            destination_port: Port::new(2),
            protocol: UDP,
            _pad: [0; 3],
        }
    }

    #[test]
    fn only_an_untouched_flow_between_ports_of_one_bridge_spends_no_hop() {
        assert_eq!(flags(&tuple(2), &tuple(2), false, true), UNTOUCHED | SAME_BRIDGE);
        assert_eq!(flags(&tuple(2), &tuple(2), false, false), UNTOUCHED);
        assert_eq!(flags(&tuple(2), &tuple(2), true, true), UNTOUCHED | TO_UPLINK);
        assert_eq!(flags(&tuple(2), &tuple(3), false, true), 0);
    }

    #[test]
    fn only_an_untouched_twin_is_contradicted_and_only_by_a_translation() {
        assert!(contradicts(0, UNTOUCHED));
        assert!(!contradicts(UNTOUCHED, UNTOUCHED));
        assert!(!contradicts(0, 0));
    }

    fn learned(left: u8, flags: u32) -> Flow<V4> {
        let entered = tuple(9);
        Flow { tag: entered.tag(), left: tuple(left), flags, ..Flow::zeroed() }
    }

    #[test]
    fn what_has_happened_to_an_entry_since_makes_it_no_other() {
        let flow = learned(2, ANSWERS);
        assert!(is_same(&Flow { revisit_at: 7, epoch: 8, ..flow }, &flow));
        assert!(is_same(&learned(2, ANSWERS | CLOSED | TOLD | NEW), &flow));
        assert!(is_same(&flow, &learned(2, ANSWERS | NEW)));
        assert!(!is_same(&learned(3, ANSWERS), &flow));
        assert!(!is_same(&learned(2, 0), &flow));
    }

    const LEAVING: Leaving = Leaving {
        by: 1,
        to_uplink: false,
        same_bridge: false,
        hash: 0,
        now: 100_000,
        revisit: 5_000,
        jiffies_per_second: 250,
    };

    /// Flags, and after how many jiffies it asks.
    fn filled(
        flow: Flow<V4>,
        known: Option<&Flow<V4>>,
        back: Option<&Flow<V4>>,
        answers_service: Option<bool>,
    ) -> (u32, u64) {
        let mut flow = flow;
        fill_datagrams(&mut flow, known, back, answers_service, &LEAVING);
        (flow.flags, flow.revisit_at - LEAVING.now)
    }

    #[test]
    fn a_new_entry_of_datagrams_asks_soon_and_one_that_goes_on_after_revisit() {
        const SOON: u64 = 250 * 11 / 4;
        let flow = learned(2, UNTOUCHED);
        assert_eq!(filled(flow, None, None, None), (UNTOUCHED | NEW, SOON));
        let known = Flow { revisit_at: LEAVING.now - 749, ..flow };
        assert_eq!(filled(flow, Some(&known), None, None), (UNTOUCHED, 5_000));
        // The host may have forgotten it since.
        let stale = Flow { revisit_at: LEAVING.now - 751, ..flow };
        assert_eq!(filled(flow, Some(&stale), None, None), (UNTOUCHED | NEW, SOON));
        let other = learned(3, UNTOUCHED);
        assert_eq!(filled(flow, Some(&other), None, None), (UNTOUCHED | NEW, SOON));
    }

    #[test]
    fn which_way_translated_datagrams_go_is_told_by_addresses_then_by_what_was_first() {
        let flags = |known, back, answers_service| {
            filled(learned(2, 0), known, back, answers_service).0 & ANSWERS
        };
        let (question, answer, older) = (learned(2, 0), learned(2, ANSWERS), learned(3, ANSWERS));
        assert_eq!(flags(Some(&question), Some(&question), Some(true)), ANSWERS);
        assert_eq!(flags(Some(&answer), Some(&answer), Some(false)), 0);
        assert_eq!(flags(Some(&answer), Some(&answer), None), ANSWERS);
        assert_eq!(flags(Some(&question), Some(&question), None), 0);
        assert_eq!(flags(Some(&older), Some(&answer), None), 0);
        assert_eq!(flags(None, Some(&question), None), ANSWERS);
        assert_eq!(flags(None, None, None), 0);
        // Answers ask sooner, since they wait.
        assert_eq!(filled(learned(2, 0), Some(&answer), None, None).1, 687);
        let known = Flow { revisit_at: LEAVING.now, ..answer };
        assert_eq!(filled(learned(2, 0), Some(&known), None, None), (ANSWERS, 3_750));
    }

    #[test]
    fn only_addresses_that_are_not_the_nodes_tell_a_services_answers() {
        let (client, service, web) = (1, 2, 3);
        let of = |source: u8, destination| Tuple {
            source: Ipv4 { octets: [10, 0, 0, source] },
            ..tuple(destination)
        };
        let tell = |entered, left, nodes: u8| {
            answers_service(&entered, &left, |address: &Ipv4| address.octets[3] == nodes)
        };
        assert_eq!(tell(of(client, service), of(client, web), 9), Some(false));
        assert_eq!(tell(of(web, client), of(service, client), 9), Some(true));
        assert_eq!(tell(of(client, service), of(client, web), service), None);
        assert_eq!(tell(of(web, client), of(service, client), service), None);
        assert_eq!(tell(of(client, service), of(9, web), 9), None);
    }
}
