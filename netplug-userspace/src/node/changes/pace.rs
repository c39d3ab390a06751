//! How often changes are answered: the first at once, a storm of them no more than ten times a second, and the last always.

use std::time::{Duration, Instant};

/// Between two answers. One costs each flow a visit.
const PAUSE: Duration = Duration::from_millis(100);
/// Until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// When the next answer is due.
#[derive(Debug, Default)]
pub struct Pace {
    due: Option<Instant>,
    last: Option<Instant>,
    again: bool,
}

impl Pace {
    /// Something is to be answered.
    pub fn note(&mut self, now: Instant) {
        let rested = self.last.map_or(now, |last| now.max(last + PAUSE));
        self.due.get_or_insert(rested);
    }

    /// The same, for what may be told just before it is so: it is answered a second time, after the pause.
    pub fn note_early(&mut self, now: Instant) {
        self.note(now);
        self.again = true;
    }

    /// When there is something to be answered.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time to answer; then that is done for all that was noted.
    pub fn answers(&mut self, now: Instant) -> bool {
        let is_time = self.due.is_some_and(|due| due <= now);
        if is_time {
            let due = self.again.then(|| now + PAUSE);
            *self = Self { due, last: Some(now), again: false };
        }
        is_time
    }

    /// What was to be answered was not.
    pub fn put_off(&mut self, now: Instant) {
        self.due = Some(now + AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_is_answered_at_once_and_none_never() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(!pace.answers(now));
        pace.note(now);
        assert!(pace.answers(now));
        assert!(!pace.answers(now + AGAIN));
        pace.note(now + AGAIN);
        assert!(pace.answers(now + AGAIN));
    }

    #[test]
    fn a_storm_is_answered_by_the_pause_and_its_last_is_not_lost() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut answers = 0;
        let mut last_answer = start;
        for step in 0..1_050 {
            let now = start + MILLISECOND * step;
            if step < 1_000 {
                pace.note(now);
            }
            if pace.answers(now) {
                answers += 1;
                last_answer = now;
            }
        }
        assert_eq!(answers, 11);
        assert!(last_answer >= start + MILLISECOND * 1_000);
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn what_is_told_early_is_answered_twice() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.note_early(now);
        assert!(pace.answers(now));
        assert!(!pace.answers(now + PAUSE - MILLISECOND));
        assert!(pace.answers(now + PAUSE));
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn what_could_not_be_answered_is_tried_again() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.note(now);
        assert!(pace.answers(now));
        pace.put_off(now);
        pace.note(now);
        assert!(!pace.answers(now + PAUSE));
        assert!(pace.answers(now + AGAIN));
    }
}
