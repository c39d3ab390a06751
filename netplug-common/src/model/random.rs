//! Long random stories of a world that is too large to look at whole.

use proptest::prelude::*;
use proptest::sample::subsequence;

use crate::model::node::{Node, Scene};
use crate::model::rules::Rules;
use crate::model::world::World;

/// A few of the phrases, so that they meet.
fn worlds() -> impl Strategy<Value = World> {
    let large = World::large();
    subsequence(large.phrases.clone(), 1..=6)
        .prop_map(move |phrases| World { phrases, ..large.clone() })
}

/// A choice among what can happen. Most of it is packets going on.
fn choices() -> impl Strategy<Value = Vec<(bool, u16)>> {
    prop::collection::vec((prop::bool::weighted(0.1), any::<u16>()), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_large_world_keeps_the_promise(world in worlds(), choices in choices()) {
        let scene = Scene { world: &world, rules: &Rules::PRESENT };
        let mut node = Node::new(&world);
        let mut told = Vec::new();
        for (is_any, choice) in choices {
            let mut actions = node.actions(&world);
            actions.retain(|action| is_any || action.is_traffic());
            let action = actions[usize::from(choice) % actions.len()];
            told.push(node.tell(&world, action));
            let step = node.step(&scene, action);
            prop_assert!(step.is_ok(), "{}\nand {:?}", told.join("\n"), step);
        }
    }
}
