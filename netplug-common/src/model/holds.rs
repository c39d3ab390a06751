//! In every state that a small world can reach, the promise holds.

use crate::model::rules::Rules;
use crate::model::search::search;
use crate::model::world::World;

/// More states than any of the worlds has.
const MANY: usize = 1_000_000;

#[track_caller]
fn holds(world: &World) {
    let found = search(world, &Rules::PRESENT, MANY);
    println!("{}: {} states, {} actions deep", world.name, found.states, found.depth);
    assert_eq!(found.broken, None, "{}", world.name);
    assert!(found.is_whole, "{} has more than {MANY} states", world.name);
}

#[test]
fn datagrams_to_a_service_while_everything_changes() {
    holds(&World::service());
}

#[test]
fn packets_in_the_hosts_hands_while_everything_changes() {
    holds(&World::hands());
}

#[test]
fn packets_that_look_alike_within_an_epoch() {
    let hands = World::hands();
    holds(&World { name: "alike", alike: true, epochs: false, ..hands });
}

#[test]
fn a_connection_that_opens_and_closes_and_opens_again() {
    holds(&World::connection());
}

#[test]
fn a_connection_whose_packets_overtake_one_another() {
    holds(&World::connection_in_hands());
}

#[test]
fn both_sides_of_a_connection() {
    holds(&World::conversation());
}

#[test]
fn two_pods_that_call_each_other_at_once() {
    holds(&World::simultaneous_open());
}

#[test]
fn a_port_that_serves_a_direct_flow_and_one_to_a_service() {
    holds(&World::port_reuse());
}

#[test]
fn a_port_that_one_connection_leaves_to_another() {
    holds(&World::port_taken_over());
}

#[test]
fn both_learned_at_the_same_instant() {
    holds(&World::port_reuse_at_once());
}

#[test]
fn two_services_of_one_pod() {
    holds(&World::two_services());
}

#[test]
fn tuples_that_share_a_hash() {
    holds(&World::collisions());
}

#[test]
fn a_bridge_that_floods_a_route_that_moves_and_a_pod_that_lies() {
    holds(&World::places());
}

#[test]
fn a_pod_that_is_taken_away_while_it_is_called() {
    holds(&World::deletion());
}
