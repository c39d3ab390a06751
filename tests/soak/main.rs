//! Whatever changes on a node, each answer comes from whom it may come: random services and policies, connections, endpoints
//! that come and go, pods that are replaced, and entries taken out of the maps, all at once and for as long as one likes.
//!
//! `NETPLUG_SOAK_SECONDS` says for how long (three minutes by default; `cargo xtask soak` runs an hour), `NETPLUG_SOAK_SEED` what
//! happens. What is asked and what changes follows from the seed; when one meets the other does not.

mod asking;
mod changing;
mod known;
mod node;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netplug_tests::counters::Counters;

use asking::Way;
use node::World;

/// Chance that can be had again from its seed (xorshift32, Marsaglia).
struct Random(u32);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let index = self.below(u32::try_from(all.len()).expect("few"));
        all[index as usize]
    }
}

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}; give a number"))
    })
}

#[test]
fn each_answer_comes_from_whom_it_may_come() {
    let seconds = number("NETPLUG_SOAK_SECONDS", 180);
    let seed = number("NETPLUG_SOAK_SEED", std::process::id()).max(1);
    println!("NETPLUG_SOAK_SEED={seed}");
    let world = World::new();
    let before = Counters::of(&world.node);
    let end = Instant::now() + Duration::from_secs(seconds.into());
    std::thread::scope(|scope| {
        scope.spawn(|| changing::change(&world, Random(seed), end));
        for (number, way) in (1..).zip(Way::ALL) {
            let random = Random(seed.wrapping_mul(0x9e37_79b1).wrapping_add(number) | 1);
            let world = &world;
            scope.spawn(move || asking::ask(world, way, random, end));
        }
    });
    let now = Counters::of(&world.node).since(&before);
    let asked = Way::ALL.map(|way| (way, world.asked[way as usize].load(Ordering::SeqCst)));
    let lost = world.lost.load(Ordering::SeqCst);
    println!(
        "{asked:?}, {lost} datagrams sent again, {} hits, {} visits",
        now.hits(),
        now.visits()
    );
    assert!(asked.iter().all(|(_, times)| *times > seconds.into()), "{asked:?}");
    assert!(now.hits() > now.visits(), "{now:?}");
    let all: u64 = asked.iter().map(|(_, times)| times).sum();
    assert!(lost < all / 50, "{lost} of {all} questions were sent again");
}
