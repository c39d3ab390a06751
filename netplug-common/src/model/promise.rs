//! What may become of a packet now: see the list in `mod.rs`.

use crate::model::cache::REVISIT;
use crate::model::cast::{Phrase, Tuple};
use crate::model::host::{Host, Outcome, Policy};

/// What the host without the cache made, or would have made, of each phrase, and how many ticks ago that was last so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Promise {
    held: Vec<Held>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    phrase: u8,
    outcome: Outcome,
    age: u8,
}

impl Promise {
    /// Whether that may become of a phrase.
    pub fn allows(&self, phrase: u8, outcome: &Outcome) -> bool {
        self.held.iter().any(|held| held.phrase == phrase && held.outcome == *outcome)
    }

    /// What the host would make of each phrase now is allowed from now on.
    pub fn observe(&mut self, phrases: &[Phrase], host: &Host, policy: &Policy) {
        for (phrase, said) in (0..).zip(phrases) {
            self.renew(phrase, host.would(policy, said));
        }
    }

    /// A packet left, for which this was decided.
    pub fn renew(&mut self, phrase: u8, outcome: Outcome) {
        match self.held.iter_mut().find(|held| held.phrase == phrase && held.outcome == outcome) {
            Some(held) => held.age = 0,
            None => self.held.push(Held { phrase, outcome, age: 0 }),
        }
    }

    /// Older decisions about phrases of this tuple count no more. [`Promise::observe`] must follow.
    pub fn begin_anew(&mut self, phrases: &[Phrase], tuple: &Tuple) {
        self.held.retain(|held| phrases[usize::from(held.phrase)].tuple != *tuple);
    }

    /// Older decisions to leave phrases of this tuple untouched count no more. [`Promise::observe`] must follow.
    pub fn give(&mut self, phrases: &[Phrase], tuple: &Tuple) {
        self.held.retain(|held| {
            let said = phrases[usize::from(held.phrase)].tuple;
            said != *tuple || held.outcome.is_none_or(|way| way.tuple != said)
        });
    }

    /// Older decisions to have phrases of the tuple `answers` leave as another than `asked` count no more.
    /// [`Promise::observe`] must follow.
    pub fn give_to(&mut self, phrases: &[Phrase], answers: &Tuple, asked: &Tuple) {
        self.held.retain(|held| {
            phrases[usize::from(held.phrase)].tuple != *answers
                || held.outcome.is_none_or(|way| way.tuple == *asked)
        });
    }

    /// Older decisions count no more. [`Promise::observe`] must follow.
    pub fn end_epoch(&mut self) {
        self.held.clear();
    }

    /// A tick passes.
    pub fn pass_time(&mut self) {
        for held in &mut self.held {
            held.age += 1;
        }
        self.held.retain(|held| held.age < REVISIT);
    }

    /// In an order that does not depend on how it came to be.
    pub fn sort(&mut self) {
        self.held.sort_unstable_by_key(|held| {
            let way = held.outcome.map(|way| (way.by, way.tuple.key()));
            (held.phrase, way)
        });
    }
}
