//! `netplug watch` on a node: a process that outlives one call.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::{SOON, eventually};
use crate::namespace::Namespace;

/// The process, which is ended with this value.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts `command` in `namespace`.
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = namespace
            .enter(move || command.spawn())
            .unwrap_or_else(|error| panic!("cannot run netplug watch: {error}"));
        let said = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().expect("it was asked for")).lines();
        let heard = said.clone();
        let listener = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        Self { child, said, listener: Some(listener) }
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has said `text`.
    #[track_caller]
    pub fn says(&self, text: &str) {
        eventually(SOON, || {
            let said = self.said();
            if said.contains(text) { Ok(()) } else { Err(said) }
        });
    }

    /// Sends it `signal` and waits for its end.
    #[track_caller]
    pub fn end_by(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        eventually(SOON, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(other),
        })
    }

    /// Has it stand still for as long as `work` takes.
    pub fn still<R>(&self, work: impl FnOnce() -> R) -> R {
        self.signal(Signal::STOP);
        let done = work();
        self.signal(Signal::CONT);
        done
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended, and is not forgotten before it is waited for.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}
