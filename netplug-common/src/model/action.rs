//! What can happen. Numbers are positions: of a phrase in the world, of the rest in the state.

use crate::model::host::Deletion;
use crate::model::node::Node;
use crate::model::packet::{Packet, Stage};
use crate::model::world::World;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A phrase is said.
    Say(u8),
    /// The same, and if it visits, no note is taken.
    SayAside(u8),
    /// The host decides about a packet in its hands.
    Decide(u8),
    /// A packet leaves, and what it teaches is decided.
    Leave(u8),
    /// What it teaches is written. Another CPU may have done anything meanwhile.
    Write(u8),
    /// A copy of a packet leaves by another pod's port first.
    Flood(u8),
    /// A packet in the host's hands gets lost.
    Lose(u8),
    /// The firewall rule is added or removed.
    Rule,
    /// The services' endpoint becomes the other pod.
    Endpoint,
    /// The outside is reached by the other uplink.
    Route,
    /// A connection is taken from both conntracks.
    Forget(u8),
    /// FLOWS loses an entry.
    EvictFlow(u8),
    /// VISITS loses an entry.
    EvictVisit(u8),
    /// Another epoch begins.
    Epoch,
    /// DEL takes [`crate::model::cast::WEB`] a step further away.
    Delete,
    /// A tick passes.
    Tick,
}

impl Action {
    /// Whether a packet goes on by it.
    pub fn is_traffic(self) -> bool {
        matches!(self, Self::Say(_) | Self::Decide(_) | Self::Leave(_) | Self::Write(_))
    }
}

impl Node {
    /// What can happen next.
    pub fn actions(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        let each = |count: usize| 0..count as u8;
        if world.hands == 0 || self.hands.len() < world.hands {
            actions.extend(each(world.phrases.len()).map(Action::Say));
            if world.hands == 0 && world.evicts {
                actions.extend(each(world.phrases.len()).map(Action::SayAside));
            }
        }
        for (at, packet) in (0..).zip(&self.hands) {
            actions.push(match packet.stage {
                Stage::Entered => Action::Decide(at),
                Stage::Decided(_) => Action::Leave(at),
                Stage::Learned(..) => Action::Write(at),
            });
            if matches!(packet.stage, Stage::Decided(_)) {
                actions.push(Action::Lose(at));
                actions.extend(world.floods.then_some(Action::Flood(at)));
            }
        }
        actions.extend(world.drops.map(|_| Action::Rule));
        actions.extend(world.endpoint_moves.then_some(Action::Endpoint));
        actions.extend(world.route_moves.then_some(Action::Route));
        if world.forgets {
            actions.extend(each(self.reference.connections.len()).map(Action::Forget));
        }
        if world.evicts {
            actions.extend(each(self.cache.flows.len()).map(Action::EvictFlow));
            actions.extend(each(self.cache.visits.len()).map(Action::EvictVisit));
        }
        actions.extend(world.epochs.then_some(Action::Epoch));
        if world.deletes && self.policy.deletion != Deletion::Gone {
            actions.push(Action::Delete);
        }
        // The way out takes no tick: conntrack's timeouts count from when the host decided.
        let is_leaving = |packet: &Packet| !matches!(packet.stage, Stage::Entered);
        actions.extend((!self.hands.iter().any(is_leaving)).then_some(Action::Tick));
        actions
    }
}
