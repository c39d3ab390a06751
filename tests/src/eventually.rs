//! Waiting for something to become true, with a deadline instead of a sleep.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long most things may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);

/// Asks until the answer is `Ok`, and returns it.
///
/// # Panics
/// When `deadline` passes: with the last `Err`, at the caller's line.
#[track_caller]
pub fn eventually<T, E: Debug>(deadline: Duration, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let last = match ask() {
            Ok(value) => return value,
            Err(last) => last,
        };
        assert!(start.elapsed() < deadline, "not within {deadline:?}; last seen: {last:#?}");
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// [`eventually`] for a value that must come to equal `wanted`.
#[track_caller]
pub fn becomes<T: Debug + PartialEq>(deadline: Duration, wanted: T, mut ask: impl FnMut() -> T) {
    eventually(deadline, || {
        let now = ask();
        if now == wanted { Ok(()) } else { Err(now) }
    });
}
