//! FLOWS and VISITS, and what the four programs do with them: `stage/flow_cache.rs`, `visit.rs`, `learn.rs`.
//!
//! Time stands still at [`NOW`], and the epoch is always [`EPOCH`]: instead everything that is kept ages. So two states that
//! differ only in when they came to be are one.

use bytemuck::Zeroable;

use crate::decide::due::{Standing, standing};
use crate::decide::identity::Identity;
use crate::decide::learn::{Leaving, contradicts, fill, is_same, leads_back};
use crate::decide::opening::{Moment, visits, voids};
use crate::hash;
use crate::ip::V4;
use crate::maps::flow::UNTOUCHED;
use crate::model::cast::{Phrase, Tuple, is_uplink, pod_at};
use crate::model::host::Way;
use crate::model::rules::Rules;
use crate::tuple::UDP;

/// What FLOWS has.
pub type Flow = crate::maps::flow::Flow<V4>;
/// What VISITS has.
pub type Visit = crate::maps::visit::Visit<V4>;

/// The time, in jiffies.
pub const NOW: u64 = 1_000_000;
/// The shortest time that can pass.
pub const TICK: u64 = 1_000;
/// `revisit`, in ticks.
pub const REVISIT: u8 = 2;
/// The present epoch.
const EPOCH: u32 = 1;
/// Every earlier one.
const PAST_EPOCH: u32 = 0;
const HASH_KEY: u64 = 0x5eed;

/// The maps.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    /// FLOWS, sorted.
    pub flows: Vec<(Tuple, Flow)>,
    /// VISITS, sorted.
    pub visits: Vec<(u32, Visit)>,
}

/// What was decided to be learned, but is not written yet.
#[derive(Debug, Clone, Copy)]
pub struct Learned {
    entered: Tuple,
    flow: Flow,
}

impl Cache {
    /// The short way, if the packet takes it.
    pub fn follow(&mut self, phrase: &Phrase, rules: &Rules) -> Option<Way> {
        let (_, flow) = self.flows.iter().find(|(tuple, _)| *tuple == phrase.tuple)?;
        let by = if rules.bound_to_interface { phrase.by } else { flow.entered_by };
        let epoch = if rules.epoch { EPOCH } else { flow.epoch };
        let now = if rules.revisit { NOW } else { 0 };
        if standing(flow, by, epoch, now) != Standing::Good {
            return None;
        }
        let way = Way { by: flow.leaves_by, tuple: flow.left };
        let moment = phrase.moment();
        if rules.openings_void && voids(moment) {
            self.forget(&phrase.tuple);
        }
        let is_visit = match moment {
            Moment::Opening => rules.openings_visit,
            Moment::Closing => rules.closings_visit,
            Moment::Underway => true,
        };
        if is_visit && visits(moment) { None } else { Some(way) }
    }

    /// Notes a packet that visits; the hash that it carries, or 0.
    pub fn remember(&mut self, phrase: &Phrase, identity: Identity, hash_mask: u32) -> u32 {
        if visits(phrase.moment()) {
            return 0;
        }
        let hash = hash::of(&phrase.tuple, HASH_KEY) & hash_mask | 1;
        let mut visit = Visit {
            entered: phrase.tuple,
            identity,
            entered_by: phrase.by,
            epoch: EPOCH,
            ..Visit::zeroed()
        };
        visit.seal = visit.digest();
        self.visits.retain(|(known, _)| *known != hash);
        self.visits.push((hash, visit));
        self.visits.sort_by_key(|(hash, _)| *hash);
        hash
    }

    /// What is to be learned from a packet under way that leaves carrying `hash`.
    pub fn learn(
        &self,
        hash: u32,
        identity: &Identity,
        way: &Way,
        rules: &Rules,
    ) -> Option<Learned> {
        let (_, visit) = self.visits.iter().find(|(known, _)| *known == hash)?;
        if rules.identity && !visit.is_of(identity) {
            return None;
        }
        if rules.epoch_of_entering && visit.epoch != EPOCH {
            return None;
        }
        let to_uplink = is_uplink(way.by);
        if rules.own_address && !to_uplink && pod_at(way.tuple.destination) != Some(way.by) {
            return None;
        }
        let leaving = Leaving {
            by: way.by,
            to_uplink,
            same_bridge: !to_uplink,
            hash,
            now: NOW,
            revisit: u64::from(REVISIT) * TICK,
            jiffies_per_second: TICK,
        };
        let mut flow = Flow::zeroed();
        fill(&mut flow, visit, &way.tuple, &leaving);
        if !rules.epoch_of_entering {
            flow.epoch = EPOCH;
        }
        Some(Learned { entered: visit.entered, flow })
    }

    /// Writes what was learned, and removes what it contradicts.
    pub fn write(&mut self, learned: &Learned, rules: &Rules) {
        let Learned { entered, flow } = learned;
        if rules.twins {
            self.flows.retain(|(tuple, cached)| {
                *tuple != flow.left || !contradicts(flow.flags, cached.flags)
            });
        }
        if rules.answers_lead_back {
            let answers = flow.left.reversed();
            self.flows
                .retain(|(tuple, cached)| *tuple != answers || leads_back(entered, &cached.left));
        }
        if flow.flags & UNTOUCHED != 0 && entered.protocol == UDP {
            let known = self.flows.iter().find(|(tuple, _)| tuple == entered);
            let question = known.filter(|(_, known)| known.flags & UNTOUCHED == 0);
            if let Some(question) = question.map(|(_, known)| known.left.reversed()) {
                self.forget(&question);
            }
        }
        self.put(entered, flow);
        if !rules.per_direction {
            let answers = Flow {
                tag: flow.left.reversed().tag(),
                left: entered.reversed(),
                entered_by: flow.leaves_by,
                leaves_by: flow.entered_by,
                ..*flow
            };
            self.put(&flow.left.reversed(), &answers);
        }
    }

    fn put(&mut self, entered: &Tuple, flow: &Flow) {
        match self.flows.iter_mut().find(|(tuple, _)| tuple == entered) {
            Some((_, known)) if is_same(known, flow) => {
                known.revisit_at = flow.revisit_at;
                known.epoch = flow.epoch;
            }
            Some((_, known)) => *known = *flow,
            None => {
                self.flows.push((*entered, *flow));
                self.flows.sort_unstable_by_key(|(tuple, _)| tuple.key());
            }
        }
    }

    fn forget(&mut self, tuple: &Tuple) {
        self.flows.retain(|(known, _)| known != tuple);
    }

    /// Everything is a tick older. What is due stays due.
    pub fn pass_time(&mut self) {
        for (_, flow) in &mut self.flows {
            flow.age();
        }
    }

    /// Another epoch.
    pub fn end_epoch(&mut self) {
        for (_, flow) in &mut self.flows {
            flow.epoch = PAST_EPOCH;
        }
        for (_, visit) in &mut self.visits {
            visit.epoch = PAST_EPOCH;
            visit.seal = visit.digest();
        }
    }
}

impl Learned {
    /// It is a tick older.
    pub fn pass_time(&mut self) {
        self.flow.age();
    }

    /// Another epoch.
    pub fn end_epoch(&mut self) {
        self.flow.epoch = PAST_EPOCH;
    }

    /// The tuple that it leaves as, if the host translated it.
    pub fn translated(&self) -> Option<Tuple> {
        (self.flow.flags & UNTOUCHED == 0).then_some(self.flow.left)
    }

    /// All of it, for telling states apart.
    pub fn bytes(&self) -> [&[u8]; 2] {
        [bytemuck::bytes_of(&self.entered), bytemuck::bytes_of(&self.flow)]
    }
}

impl Flow {
    fn age(&mut self) {
        self.revisit_at = (self.revisit_at - TICK).max(NOW);
    }
}
