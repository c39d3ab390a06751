//! What breaks the promise today. It heals within `revisit`, and needs somebody to take entries from conntrack.

use crate::model::rules::Rules;
use crate::model::search::search;
use crate::model::world::World;

/// The shortest story that breaks the promise, or none.
#[track_caller]
fn story(world: &World, rules: &Rules) -> Vec<String> {
    let found = search(world, rules, 1_000_000);
    assert!(found.is_whole || found.broken.is_some());
    let story = found.broken.unwrap_or_default();
    println!("{}, after {} states:\n  {}", world.name, found.states, story.join("\n  "));
    story
}

/// A flow that the host translated is not learned, since the visit was lost, so an entry for its answers stays that leaves
/// them untouched. It is an older flow's, whose entry was taken from conntrack.
#[test]
fn a_translated_flow_that_is_not_learned_leaves_its_twin() {
    let world = World { are_answers_fresh: true, ..World::port_reuse_at_once() };
    let story = story(&world, &Rules::PRESENT);
    let end = "and it reaches client as web:80 -> client:40000";
    assert_eq!(story.last().map(String::as_str), Some(end));
}
