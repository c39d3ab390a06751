//! Every sequence of actions, the short ones first; states that were met before are not looked at again.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasherDefault;

use crate::model::action::Action;
use crate::model::fingerprint::Fingerprint;
use crate::model::node::{Node, Scene};
use crate::model::rules::Rules;
use crate::model::world::World;

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// States that were looked at.
    pub states: usize,
    /// Whether there are no others.
    pub is_whole: bool,
    /// Actions on the longest way to a state.
    pub depth: usize,
    /// The shortest sequence that breaks the promise, in words.
    pub broken: Option<Vec<String>>,
}

/// Looks at no more than `most` states.
pub fn search(world: &World, rules: &Rules, most: usize) -> Found {
    let scene = Scene { world, rules };
    let start = Node::new(world);
    let mut known: HashSet<u64, BuildHasherDefault<Fingerprint>> = HashSet::default();
    known.insert(start.fingerprint());
    // Of each state: the one before it, and what led here.
    let mut ways: Vec<(usize, Action)> = vec![(0, Action::Tick)];
    let mut next = VecDeque::from([(0, 0, start)]);
    let mut deepest = 0;
    while let Some((number, depth, node)) = next.pop_front() {
        deepest = depth;
        if ways.len() > most {
            return Found { states: ways.len(), is_whole: false, depth, broken: None };
        }
        for action in node.actions(world) {
            let mut after = node.clone();
            if let Err(violation) = after.step(&scene, action) {
                let mut broken = tell(&scene, &ways, number, action);
                broken.push(format!("and {}", violation.0));
                return Found { states: ways.len(), is_whole: false, depth, broken: Some(broken) };
            }
            if known.insert(after.fingerprint()) {
                next.push_back((ways.len(), depth + 1, after));
                ways.push((number, action));
            }
        }
    }
    Found { states: ways.len(), is_whole: true, depth: deepest, broken: None }
}

/// The way to a state and one action more, in words.
fn tell(scene: &Scene<'_>, ways: &[(usize, Action)], to: usize, last: Action) -> Vec<String> {
    let mut actions = vec![last];
    let mut at = to;
    while at != 0 {
        actions.push(ways[at].1);
        at = ways[at].0;
    }
    let mut node = Node::new(scene.world);
    let mut told = Vec::new();
    for action in actions.into_iter().rev() {
        told.push(node.tell(scene.world, action));
        // The last one fails, and nothing follows.
        let _ = node.step(scene, action);
    }
    told
}
