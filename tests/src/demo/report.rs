//! What the demo found, told as it goes, or all at once as JSON.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use serde_json::{Map, Value, json};

use super::cost::Cost;

/// The demo's findings.
pub(super) struct Report {
    json: bool,
    checks: Vec<Value>,
    failed: usize,
    cost: Value,
    panic: Arc<Mutex<String>>,
}

impl Report {
    /// An empty report; from here on a panic is a finding, and does not print itself.
    pub(super) fn new(json: bool) -> Self {
        let panic = Arc::new(Mutex::new(String::new()));
        let last = panic.clone();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or("a panic");
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            // The first of a chain says what happened; the others are threads that waited for it.
            if last.is_empty() {
                *last = text.to_owned();
            }
        }));
        Self { json, checks: Vec::new(), failed: 0, cost: Value::Null, panic }
    }

    /// A heading.
    pub(super) fn chapter(&self, title: &str) {
        if !self.json {
            println!("\n{title}");
        }
    }

    /// Runs one check: what was seen, or what went wrong.
    pub(super) fn check(&mut self, name: &str, check: impl FnOnce() -> anyhow::Result<String>) {
        let found = self.caught(check);
        self.record(name, found);
    }

    /// Runs a step that later ones need; `None` when it failed.
    pub(super) fn build<T>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<(T, String)>,
    ) -> Option<T> {
        match self.caught(step) {
            Ok((built, saw)) => {
                self.record(name, Ok(saw));
                Some(built)
            }
            Err(error) => {
                self.record(name, Err(error));
                None
            }
        }
    }

    /// Runs the measurements. No figure is a reason to fail.
    pub(super) fn cost(&mut self, measure: impl FnOnce() -> anyhow::Result<Vec<Cost>>) {
        match self.caught(measure) {
            Ok(costs) => {
                if !self.json {
                    costs.iter().for_each(|cost| println!("  {cost}"));
                }
                let fields: Map<_, _> =
                    costs.iter().map(|cost| (cost.key.to_owned(), cost.json())).collect();
                self.cost = Value::Object(fields);
            }
            Err(error) => self.record("the measurements", Err(error)),
        }
    }

    /// Prints what is left to print.
    pub(super) fn finish(self) -> ExitCode {
        let count = self.checks.len();
        if self.json {
            println!("{}", json!({"checks": self.checks, "cost": self.cost}));
        } else if self.failed == 0 {
            println!("\nall {count} checks passed");
        } else {
            println!("\n{} of {count} checks failed", self.failed);
        }
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn record(&mut self, name: &str, found: anyhow::Result<String>) {
        let ok = found.is_ok();
        let saw = found.unwrap_or_else(|error| format!("{error:#}"));
        if !ok {
            self.failed += 1;
        }
        if !self.json {
            println!("  {} {name:<44} {saw}", if ok { "ok  " } else { "FAIL" });
        }
        self.checks.push(json!({"name": name, "ok": ok, "saw": saw}));
    }

    fn caught<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let result = catch_unwind(AssertUnwindSafe(work));
        let said = || self.panic.lock().unwrap_or_else(PoisonError::into_inner).clone();
        result.unwrap_or_else(|_| Err(anyhow!(said())))
    }
}
