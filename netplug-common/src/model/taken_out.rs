//! Without any one of the rules the promise breaks.

use crate::model::rules::Rules;
use crate::model::search::search;
use crate::model::world::World;

/// The longest counterexample that people would call short, in lines.
const SHORT: usize = 11;

/// Asserts how the shortest story ends that the world has without a rule.
#[track_caller]
fn breaks(world: &World, take_out: impl FnOnce(&mut Rules), end: &str) {
    let mut rules = Rules::PRESENT;
    take_out(&mut rules);
    let found = search(world, &rules, 100_000);
    let story = found.broken.expect("without the rule the promise must break");
    println!("after {} states:\n  {}", found.states, story.join("\n  "));
    assert_eq!(story.last().map(String::as_str), Some(end));
    assert!(story.len() <= SHORT, "{} lines", story.len());
}

#[test]
fn what_does_not_visit_on_a_miss_is_not_translated() {
    let end = "and it reaches client as web:80 -> client:40000";
    breaks(&World::two_services(), |rules| rules.miss_visits = false, end);
}

#[test]
fn an_opening_that_does_not_visit_is_not_seen_by_conntrack() {
    let end = "and it reaches other as client:40000 -> other:80";
    breaks(&World::connection(), |rules| rules.openings_visit = false, end);
}

#[test]
fn an_opening_that_voids_nothing_is_followed_by_data_to_the_old_endpoint() {
    let end = "and it reaches web as client:40000 -> web:80";
    breaks(&World::connection(), |rules| rules.openings_void = false, end);
}

#[test]
fn a_closing_that_does_not_visit_leaves_the_old_connection_in_the_new_ones_way() {
    let end = "and it reaches web as client:40000 -> web:80";
    breaks(&World::connection(), |rules| rules.closings_visit = false, end);
}

#[test]
fn answers_that_are_learned_from_calls_pass_a_firewall_that_would_drop_them() {
    let end = "and it reaches client as service:80 -> client:40000";
    breaks(&World::service(), |rules| rules.per_direction = false, end);
}

#[test]
fn what_is_learned_before_the_firewall_passes_it() {
    let end = "and it reaches client as service:80 -> client:40000";
    breaks(&World::service(), |rules| rules.let_through = false, end);
}

#[test]
fn an_entry_that_never_asks_again_outlives_a_route() {
    let end = "and it reaches uplink as client:40000 -> outside:80";
    breaks(&World::places(), |rules| rules.revisit = false, end);
}

#[test]
fn an_entry_of_another_epoch_outlives_a_route() {
    let end = "and it reaches uplink as client:40000 -> outside:80";
    breaks(&World::places(), |rules| rules.epoch = false, end);
}

#[test]
fn a_packet_that_left_in_another_epoch_than_it_entered_teaches_what_was() {
    let end = "and it reaches web as client:40000 -> web:80";
    // The hash of an epoch guards against it, too.
    let take_out = |rules: &mut Rules| {
        (rules.epoch_of_entering, rules.hash_of_epoch) = (false, false);
    };
    breaks(&World::hands(), take_out, end);
}

#[test]
fn a_liar_rides_anothers_flow_past_the_guard() {
    let end = "and it reaches uplink as client:40000 -> outside:80";
    breaks(&World::places(), |rules| rules.bound_to_interface = false, end);
}

#[test]
fn a_reused_port_gets_answers_from_an_address_that_it_never_asked() {
    let end = "and it reaches client as web:80 -> client:40000";
    // What is cached for answers is looked at for itself.
    let take_out = |rules: &mut Rules| (rules.twins, rules.answers_lead_back) = (false, false);
    breaks(&World::conversation(), take_out, end);
}

#[test]
fn a_shared_hash_sends_one_flow_where_the_other_went() {
    let end = "and it reaches web as client:40000 -> web:80";
    breaks(&World::collisions(), |rules| rules.identity = false, end);
}

#[test]
fn a_flooded_copy_draws_the_flow_to_the_wrong_pod() {
    let end = "and it reaches other as client:40000 -> outside:80";
    breaks(&World::places(), |rules| rules.own_address = false, end);
}

#[test]
fn a_datagrams_connection_is_forgotten_sooner_than_without_the_cache() {
    let end = "and it reaches client as web:80 -> client:40000";
    breaks(&World::service(), |rules| rules.late_timeouts = false, end);
}

#[test]
fn a_flow_is_learned_towards_a_pod_that_is_being_deleted() {
    let end = "and it reaches web as client:40000 -> web:80";
    breaks(&World::deletion(), |rules| rules.unregisters_first = false, end);
}

#[test]
fn of_two_packets_that_look_alike_one_would_be_taken_for_the_other_across_epochs() {
    let world = World { alike: true, ..World::hands() };
    let end = "and it reaches web as client:40000 -> web:80";
    breaks(&world, |rules| rules.hash_of_epoch = false, end);
}

#[test]
fn answers_would_leave_as_of_an_older_flow() {
    let world = World { forgets: true, are_answers_fresh: true, ..World::two_services() };
    let end = "and it reaches client as web:80 -> client:40000";
    breaks(&world, |rules| rules.answers_lead_back = false, end);
}

#[test]
fn answers_of_a_reused_port_would_leave_as_of_an_older_flow() {
    let world =
        World { forgets: true, are_answers_fresh: true, evicts: false, ..World::port_reuse() };
    let end = "and it reaches client as web:80 -> client:40000";
    breaks(&world, |rules| rules.answers_lead_back = false, end);
}

#[test]
fn a_half_closed_connection_would_be_forgotten_too_early() {
    let world = World { closed_expire: true, ..World::conversation() };
    let end = "and it reaches client as web:80 -> client:40000";
    breaks(&world, |rules| rules.late_closings = false, end);
}
