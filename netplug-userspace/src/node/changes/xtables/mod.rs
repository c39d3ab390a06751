//! Legacy iptables, of which the kernel tells nothing: its tables are looked at.
//!
//! Tools that write them have one lock, and the tables are looked at once one lets it go. Not all of them have to take it: sizes
//! are asked every second, and all that the tables say so seldom that it takes no more than a hundredth of a CPU, for a large
//! one is copied whole, while who would replace it waits. Where there are no such tables, that is two files that are not there.

mod table;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use table::{Shape, Table};

use crate::node::inotify::{Inotify, WatchFlags};

/// `XT_LOCK_NAME` of iptables; kube-proxy takes it too.
const LOCK: &str = "/run/xtables.lock";
/// Between two looks at sizes.
const PAUSE: Duration = Duration::from_secs(1);
/// How much longer than a look at all that they say the pause after it is, where nobody had the lock, and where somebody had.
const REST: u32 = 100;
const REST_OF_LOCK: u32 = 10;

/// The tables as they were.
pub struct Xtables {
    lock: Inotify,
    /// Whether somebody has let it go since the last look.
    is_released: bool,
    shapes: BTreeMap<Table, Shape>,
    contents: BTreeMap<Table, u64>,
    next_look: Instant,
    /// When the last look at all that they say was over, and how much of a CPU it took.
    looked: (Instant, Duration),
}

impl Xtables {
    /// Looks at those of the calling thread's namespace for the first time.
    pub fn listen() -> io::Result<Self> {
        let now = Instant::now();
        let mut tables = Self {
            lock: Inotify::new()?,
            is_released: true,
            shapes: BTreeMap::new(),
            contents: BTreeMap::new(),
            next_look: now,
            looked: (now, Duration::ZERO),
        };
        tables.await_lock();
        tables.look();
        Ok(tables)
    }

    /// Waits until one is another. It may be given up, and begun anew.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            if !self.is_released {
                let next_look = tokio::time::sleep_until(self.next_look.into());
                tokio::select! {
                    released = self.lock.changed() => {
                        released?;
                        self.is_released = true;
                    }
                    () = next_look => {}
                }
            }
            if self.is_released {
                let (over, took) = self.looked;
                tokio::time::sleep_until((over + took * REST_OF_LOCK).into()).await;
            }
            self.await_lock();
            if self.look() {
                return Ok(());
            }
        }
    }

    /// The first to need the file makes it.
    fn await_lock(&self) {
        self.lock.watch(LOCK.as_ref(), WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE);
    }

    /// Whether any is another than at the last look.
    fn look(&mut self) -> bool {
        let (began, so_far) = (Instant::now(), worked());
        self.next_look = began + PAUSE;
        let shapes = table::all().filter_map(|table| Some((table, table.shape()?))).collect();
        let mut is_changed = shapes != self.shapes;
        self.shapes = shapes;
        let (over, took) = self.looked;
        if is_changed || std::mem::take(&mut self.is_released) || began >= over + took * REST {
            let contents =
                |(table, shape): (&Table, &Shape)| Some((*table, table.contents(shape)?));
            let contents = self.shapes.iter().filter_map(contents).collect();
            is_changed |= contents != self.contents;
            self.contents = contents;
            self.looked = (Instant::now(), worked().saturating_sub(so_far));
        }
        is_changed
    }
}

/// How much of a CPU the calling thread has had: to wait for one is no work.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
