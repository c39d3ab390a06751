//! The differential test: one node with netplug beside one with Debian's `bridge` and the kernel's MASQUERADE, and the same
//! traffic on both. What the two ends of each flow observe must be equal, but for the port that the NAT chose.
//!
//! A [`program::Program`] is a list of steps that [`strategy`] makes up; [`run`] carries it out on a [`world::World`] and
//! writes down what was observed, a line each. Programs that once differed are kept in `regressions.jsonl`, and come first.
//! `NETPLUG_PROGRAMS` says how many programs there are of each family.

mod message;
mod observed;
mod place;
mod program;
mod regressions;
mod run;
mod socket;
mod strategy;
mod world;

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use netplug_tests::cast::Family::{self, V4, V6};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use rstest::rstest;

use program::Program;
use world::World;

/// How many programs of each family are run, unless `NETPLUG_PROGRAMS` says otherwise.
const PROGRAMS: u32 = 3_000;

#[rstest]
fn netplug_does_what_the_kernels_masquerade_does(#[values(V4, V6)] ip: Family) {
    let pair = Pair::new(true);
    for program in regressions::of(ip) {
        if let Err(difference) = pair.compare(&program) {
            panic!("{difference}");
        }
    }
    let programs = std::env::var("NETPLUG_PROGRAMS").ok();
    let cases = programs.map_or(PROGRAMS, |count| count.parse().expect("NETPLUG_PROGRAMS counts"));
    let config = config(cases);
    let start = Instant::now();
    let result = TestRunner::new(config)
        .run(&strategy::program(ip), |program| pair.compare(&program).map_err(TestCaseError::fail));
    if let Err(proptest::test_runner::TestError::Fail(difference, program)) = &result {
        regressions::keep(program);
        panic!("the shortest program that differs is now in {}:\n{difference}", regressions::PATH);
    }
    result.expect("no program is rejected");
    println!("{ip}: {cases} programs in {:?}", start.elapsed());
}

/// A comparison that cannot fail would be no test: a node that does not masquerade differs at once.
#[rstest]
fn a_node_that_does_not_masquerade_is_told_apart(#[values(V4, V6)] ip: Family) {
    let pair = Pair::new(false);
    let result = TestRunner::new(config(100))
        .run(&strategy::program(ip), |program| pair.compare(&program).map_err(TestCaseError::fail));
    let Err(proptest::test_runner::TestError::Fail(difference, program)) = result else {
        panic!("{result:?}")
    };
    assert!(program.steps.len() <= 2, "more is left of it than a flow's beginning: {difference}");
}

/// So many cases. Steps that wait in vain are slow: what a minute does not make shorter is short enough. Programs are kept by
/// [`regressions`], not by the seed that they were made of.
fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_time: 60_000, ..Config::default() }
}

/// Two nodes that differ in nothing but who masquerades.
struct Pair {
    netplug: World,
    kernel: World,
    programs: AtomicU16,
}

impl Pair {
    /// Two nodes, of which netplug's may be told not to masquerade.
    fn new(netplug_masquerades: bool) -> Self {
        let (netplug, kernel) = std::thread::scope(|scope| {
            let netplug = scope.spawn(|| World::netplug(netplug_masquerades));
            let kernel = World::kernel();
            (netplug.join(), kernel)
        });
        let netplug = netplug.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Self { netplug, kernel, programs: AtomicU16::new(0) }
    }

    /// Compares; what differs once and not the two next times is printed, and is no difference: waits on a busy machine end.
    fn compare(&self, program: &Program) -> Result<(), String> {
        let Err(difference) = self.compare_once(program) else { return Ok(()) };
        for _ in 0..2 {
            self.compare_once(program)?;
        }
        eprintln!("differed once, and not again: {difference}");
        Ok(())
    }

    /// Runs a program on both nodes at once; what differs, side by side, is the error.
    fn compare_once(&self, program: &Program) -> Result<(), String> {
        let number = self.programs.fetch_add(1, Ordering::Relaxed);
        let (netplug, kernel) = std::thread::scope(|scope| {
            let netplug = scope.spawn(|| run::on(&self.netplug, program, number));
            let kernel = run::on(&self.kernel, program, number);
            (netplug.join(), kernel)
        });
        let netplug = netplug.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if netplug == kernel || netplug.met_its_own_past() || kernel.met_its_own_past() {
            return Ok(());
        }
        let nodes = "netplug's node | the kernel's node, where they differ";
        let lines = observed::side_by_side(&netplug, &kernel);
        Err(format!("{}\n{nodes}:\n{lines}", regressions::line(program)))
    }
}
