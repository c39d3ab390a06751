//! The state: a node with the cache, beside it conntrack of one without, and what is promised.
//!
//! The node without, the *reference*, decides about each packet: at the moment that the other's host does, or at the one that
//! the packet takes the short way. Only what is under way, takes the short way and is of no connection at all begins none there:
//! the other's host will see the flow begin at its next visit.

use std::hash::{Hash, Hasher};

use crate::model::action::Action;
use crate::model::cache::Cache;
use crate::model::cast::{name, show};
use crate::model::fingerprint::Fingerprint;
use crate::model::host::{Host, Outcome, Policy};
use crate::model::packet::{Packet, Stage};
use crate::model::promise::Promise;
use crate::model::rules::Rules;
use crate::model::world::World;

/// Everything that can change.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// What people and their software set.
    pub policy: Policy,
    /// conntrack behind the cache.
    pub host: Host,
    /// conntrack of the node without a cache.
    pub reference: Host,
    /// The maps.
    pub cache: Cache,
    /// The packets in the host's hands.
    pub hands: Vec<Packet>,
    /// What may become of a packet.
    pub promise: Promise,
}

/// What becomes of a packet, and must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

/// What a step needs to know besides the state.
pub struct Scene<'a> {
    /// What can be said and done.
    pub world: &'a World,
    /// Which rules hold.
    pub rules: &'a Rules,
}

impl Node {
    /// A node where nothing has happened yet.
    pub fn new(world: &World) -> Self {
        let mut node = Self::default();
        node.settle(world);
        node
    }

    /// Does one step.
    pub fn step(&mut self, scene: &Scene<'_>, action: Action) -> Result<(), Violation> {
        match action {
            Action::Say(phrase) => self.say(scene, phrase, true)?,
            Action::SayAside(phrase) => self.say(scene, phrase, false)?,
            Action::Decide(at) => self.decide(scene, at.into())?,
            Action::Leave(at) => self.leave(scene, at.into()),
            Action::Write(at) => self.write(scene, at.into()),
            Action::Flood(at) => self.flood(scene, at.into()),
            Action::Lose(at) => _ = self.hands.remove(at.into()),
            Action::Rule => {
                self.policy.drops =
                    if self.policy.drops.is_none() { scene.world.drops } else { None };
            }
            Action::Endpoint => self.policy.endpoint_moved ^= true,
            Action::Route => self.policy.route_moved ^= true,
            Action::Forget(at) => {
                let gone = self.reference.connections.remove(at.into());
                self.host.connections.retain(|known| known.original != gone.original);
            }
            Action::EvictFlow(at) => _ = self.cache.flows.remove(at.into()),
            Action::EvictVisit(at) => _ = self.cache.visits.remove(at.into()),
            Action::Epoch => self.end_epoch(scene.rules),
            Action::Delete => self.delete(scene.rules),
            Action::Tick => self.pass_time(scene),
        }
        self.settle(scene.world);
        Ok(())
    }

    /// Whether this may become of a packet.
    pub fn check(&self, phrase: u8, outcome: Outcome) -> Result<(), Violation> {
        if self.promise.allows(phrase, &outcome) {
            return Ok(());
        }
        let what = match outcome {
            Some(way) => format!("it reaches {} as {}", name(way.by), show(&way.tuple)),
            None => "it is dropped".into(),
        };
        Err(Violation(what))
    }

    /// Brings what is promised up to date.
    fn settle(&mut self, world: &World) {
        self.promise.observe(&world.phrases, &self.reference, &self.policy);
        self.promise.sort();
        self.hands.sort_by_key(|packet| (packet.phrase, packet.serial));
        // Of no effect any more: nobody carries their hash, and who will is noted anew.
        let hands = &self.hands;
        self.cache.visits.retain(|(hash, _)| hands.iter().any(|packet| packet.hash == *hash));
    }

    /// What tells this state from others.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Fingerprint::default();
        (&self.policy, &self.host, &self.reference, &self.promise).hash(&mut hasher);
        for (tuple, flow) in &self.cache.flows {
            bytemuck::bytes_of(tuple).hash(&mut hasher);
            bytemuck::bytes_of(flow).hash(&mut hasher);
        }
        for (hash, visit) in &self.cache.visits {
            hash.hash(&mut hasher);
            bytemuck::bytes_of(visit).hash(&mut hasher);
        }
        (self.cache.flows.len(), self.cache.visits.len()).hash(&mut hasher);
        for packet in &self.hands {
            (packet.phrase, packet.serial, packet.hash, packet.is_old).hash(&mut hasher);
            match &packet.stage {
                Stage::Entered => 0.hash(&mut hasher),
                Stage::Decided(way) => (1, way).hash(&mut hasher),
                Stage::Learned(way, learned) => (2, way, learned.bytes()).hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}
