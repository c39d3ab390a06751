//! Who may answer, and since when: what each answer is held against.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a cached flow may go on as the host decided before (the setting `revisit`).
pub const REVISIT: Duration = Duration::from_secs(2);
/// What a machine that is busy adds: between a clock's being read and what comes of it.
pub const SLACK: Duration = Duration::from_secs(2);

/// A time: from the moment before a change begins until the moment after the next has ended.
#[derive(Debug, Clone, Copy)]
struct Time {
    from: Instant,
    until: Option<Instant>,
}

impl Time {
    fn meets(&self, from: Instant, until: Instant) -> bool {
        self.from <= until && self.until.is_none_or(|end| end >= from)
    }
}

/// When something was so, by what it is.
#[derive(Debug, Default)]
pub struct Known(Mutex<BTreeMap<String, Vec<Time>>>);

impl Known {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Time>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is about to be so.
    pub fn begins(&self, what: &str) {
        let mut all = self.all();
        let times = all.entry(what.into()).or_default();
        if times.last().is_none_or(|time| time.until.is_some()) {
            times.push(Time { from: Instant::now(), until: None });
        }
    }

    /// It is so no more.
    pub fn has_ended(&self, what: &str) {
        if let Some(time) = self.all().get_mut(what).and_then(|times| times.last_mut()) {
            time.until.get_or_insert_with(Instant::now);
        }
    }

    /// Whether it was so at any moment between the two.
    pub fn was(&self, what: &str, from: Instant, until: Instant) -> bool {
        self.all().get(what).is_some_and(|times| times.iter().any(|time| time.meets(from, until)))
    }

    /// When it was so lately, in seconds before now: from, and until where it has ended.
    pub fn lately(&self, what: &str) -> Vec<(f32, Option<f32>)> {
        let before = |moment: Instant| moment.elapsed().as_secs_f32();
        let all = self.all();
        let times = all.get(what).map_or(&[][..], Vec::as_slice);
        times.iter().rev().take(3).map(|time| (before(time.from), time.until.map(before))).collect()
    }

    /// Whether it has been so all the time since `from`.
    pub fn is_since(&self, what: &str, from: Instant) -> bool {
        let all = self.all();
        let last = all.get(what).and_then(|times| times.last());
        last.is_some_and(|time| time.until.is_none() && time.from <= from)
    }
}
