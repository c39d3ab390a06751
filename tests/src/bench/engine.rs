//! The clock and the umpire of a race.

use std::io;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One way of doing the work.
pub trait Lane: Send {
    /// What it is called in tables.
    fn name(&self) -> &str;

    /// What comes before a turn and is not counted.
    fn prepare(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Works until `end`; how many units were done.
    fn run(&mut self, end: Instant) -> io::Result<u64>;
}

/// How long a race is.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// One lane's turn.
    pub slice: Duration,
    /// Turns of each lane.
    pub rounds: usize,
}

/// Share of a slice that others may have had, in thousandths, before it counts as spoiled.
const TOLERATED: u128 = 20;

/// One lane's turns: the nanoseconds that a unit took in each, `None` where the turn was spoiled.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The lane's name.
    pub name: String,
    turns: Vec<Option<f64>>,
}

impl Outcome {
    /// The outcome of work that was timed one by one, none of it spoiled.
    #[must_use]
    pub fn of_times(name: &str, times: Vec<Duration>) -> Self {
        let nanoseconds = |time: Duration| Some(time.as_secs_f64() * 1e9);
        Self { name: name.into(), turns: times.into_iter().map(nanoseconds).collect() }
    }

    /// Nanoseconds for a unit: the median of the clean turns. `None`: spoiled.
    #[must_use]
    pub fn nanoseconds(&self) -> Option<f64> {
        self.enough(self.turns.iter().flatten().copied().collect())
    }

    /// How many times `base` this lane took: the median over the rounds in which both were clean. `None`: spoiled.
    #[must_use]
    pub fn ratio_to(&self, base: &Self) -> Option<f64> {
        self.enough(self.paired(base))
    }

    /// How far the ratios to `base` lie apart: half the distance between their quartiles.
    #[must_use]
    pub fn spread_to(&self, base: &Self) -> Option<f64> {
        let mut ratios = self.paired(base);
        ratios.sort_by(f64::total_cmp);
        let at = |part: usize| ratios[(ratios.len() - 1) * part / 4];
        (2 * ratios.len() > self.turns.len()).then(|| (at(3) - at(1)) / 2.0)
    }

    fn paired(&self, base: &Self) -> Vec<f64> {
        self.turns
            .iter()
            .zip(&base.turns)
            .filter_map(|(own, base)| Some((*own)? / (*base)?))
            .collect()
    }

    /// The median, if more than half of the turns were clean.
    fn enough(&self, clean: Vec<f64>) -> Option<f64> {
        (2 * clean.len() > self.turns.len()).then(|| median(clean))
    }
}

/// The middle one; of an even number, the upper of the two.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs all lanes on one CPU, in turn; every other round backwards, so that no lane always follows the same one.
pub fn race(lanes: &mut [Box<dyn Lane + '_>], pace: Pace) -> io::Result<Vec<Outcome>> {
    let mut outcomes: Vec<_> =
        lanes.iter().map(|lane| Outcome { name: lane.name().into(), turns: Vec::new() }).collect();
    std::thread::scope(|scope| {
        let race = || {
            let cpu = pin()?;
            for lane in lanes.iter_mut() {
                turn(lane.as_mut(), pace.slice / 4, cpu)?;
            }
            for round in 0..pace.rounds {
                let mut order: Vec<_> = (0..lanes.len()).collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for index in order {
                    outcomes[index].turns.push(turn(lanes[index].as_mut(), pace.slice, cpu)?);
                }
            }
            Ok(outcomes)
        };
        scope.spawn(race).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Binds the calling thread to the last CPU that it may use: the first one serves most interrupts.
fn pin() -> io::Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let cpu = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).unwrap_or_default();
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one)?;
    Ok(cpu)
}

fn turn(lane: &mut dyn Lane, slice: Duration, cpu: usize) -> io::Result<Option<f64>> {
    lane.prepare()?;
    let (waited, stolen) = (waited()?, stolen(cpu)?);
    let start = Instant::now();
    let units = lane.run(start + slice)?;
    let took = start.elapsed();
    let lost = self::waited()?.saturating_sub(waited) + self::stolen(cpu)?.saturating_sub(stolen);
    let clean = lost.as_nanos() * 1000 <= took.as_nanos() * TOLERATED && units > 0;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a slice has far fewer nanoseconds and units than 2^52"
    )]
    Ok(clean.then(|| took.as_nanos() as f64 / units as f64))
}

/// How long this thread was ready to run while something else had the CPU.
fn waited() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// How long the hypervisor has kept a CPU from this machine.
fn stolen(cpu: usize) -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{cpu} ");
    let line = text.lines().find(|line| line.starts_with(&name));
    let ticks = line.and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    ticks
        .map(|ticks| Duration::from_millis(ticks * 10))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(turns: &[Option<f64>]) -> Outcome {
        Outcome { name: "x".into(), turns: turns.into() }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let base = outcome(&[Some(100.0), Some(200.0), Some(100.0)]);
        let own = outcome(&[Some(110.0), Some(220.0), Some(110.0)]);
        assert!((own.ratio_to(&base).unwrap() - 1.1).abs() < 1e-9);
        assert!(own.spread_to(&base).unwrap() < 1e-9);
    }

    #[test]
    fn half_the_turns_spoiled_spoil_the_figure() {
        let base = outcome(&[Some(100.0), None, Some(100.0), Some(100.0)]);
        let own = outcome(&[None, Some(100.0), Some(110.0), Some(110.0)]);
        assert_eq!(own.ratio_to(&base), None);
        assert_eq!(own.nanoseconds(), Some(110.0));
    }
}
