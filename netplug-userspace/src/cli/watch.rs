//! `netplug watch`: keep up with a node that changes between ADDs: what its host decides (`changes.rs`), its uplinks and their
//! addresses, the ports of adopted bridges, and a file of ip-masq-agent's format. Packets pass without it; it holds nothing that others need,
//! and may be ended at any time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::changes;
use super::masquerade::warn_of_unknown;
use crate::node::Netlink;
use crate::node::masquerade::Choice;
use crate::node::notices::{Notice, Notices, Watching};
use crate::settings::agent_file::AgentFile;
use crate::settings::masquerade::{Effect, choose};
use crate::settings::{adopted, uplinks};

/// How soon what failed is tried again, and a file without an interval of its own is read again.
const AGAIN: Duration = Duration::from_secs(60);

pub fn run(file: Option<PathBuf>) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    // Before the first look: what changes in between is told.
    let mut notices = Notices::listen(file.as_deref())?;
    let _watching = Watching::begin()?;
    changes::answer()?;
    let mut file = file.map(|path| File { path, last: None, complaint: None, interval: AGAIN });
    let mut complaints = [None, None];
    let (mut look_at_node, mut read_file) = (true, true);
    let mut due = Instant::now();
    loop {
        if look_at_node {
            let of_uplinks = uplinks::refresh(&netlink);
            if let Ok(true) = of_uplinks {
                eprintln!("netplug: uplinks changed; see `netplug masquerade show`");
            }
            let of_adopted = adopted::refresh(&netlink);
            for news in of_adopted.as_deref().unwrap_or_default() {
                eprintln!("netplug: {news}");
            }
            let errors = [of_uplinks.err(), of_adopted.err()];
            for (complaint, error) in complaints.iter_mut().zip(errors) {
                complain(complaint, error.map(anyhow::Error::from));
            }
        }
        if let Some(file) = file.as_mut().filter(|_| read_file) {
            notices.watch_again();
            file.heed();
        }
        if read_file {
            due = Instant::now() + file.as_ref().map_or(AGAIN, |file| file.interval);
        }
        // Without a file and with nothing amiss there is nothing that time would change.
        let is_amiss = complaints.iter().any(Option::is_some);
        let until = (file.is_some() || is_amiss).then_some(due);
        (look_at_node, read_file) = match notices.next(until)? {
            Notice::End => return Ok(()),
            Notice::Node => (true, false),
            Notice::File => (false, true),
            Notice::Time => (true, true),
        };
    }
}

/// The file that is heeded.
struct File {
    path: PathBuf,
    last: Option<AgentFile>,
    complaint: Option<String>,
    interval: Duration,
}

impl File {
    /// Has the node do as the file says. Where that cannot be, the last good one counts; it is asked for each time, since an
    /// `unload` forgets it.
    fn heed(&mut self) {
        let bad = match AgentFile::read_or_default(&self.path) {
            Ok(file) => {
                if self.last.as_ref().map(|last| &last.unknown) != Some(&file.unknown) {
                    warn_of_unknown(&file);
                }
                self.interval = file.resync_interval;
                self.last = Some(file);
                None
            }
            Err(error) => Some(anyhow::Error::from(error)),
        };
        let result = match &self.last {
            Some(file) => choose(|chosen| chosen.and(Choice::from(file))).map(Some),
            None => Ok(None),
        };
        if let Ok(Some(Effect::Changed)) = result {
            eprintln!("netplug: masquerade is as {} says now", self.path.display());
        }
        complain(&mut self.complaint, bad.or_else(|| result.err().map(anyhow::Error::from)));
    }
}

/// Tells of an error once, for as long as it lasts.
pub(super) fn complain(last: &mut Option<String>, error: Option<anyhow::Error>) {
    let text = error.map(|error| format!("{error:#}"));
    if let Some(text) = text.as_ref().filter(|text| last.as_ref() != Some(*text)) {
        eprintln!("netplug: {text}; what was set before counts on");
    }
    *last = text;
}
