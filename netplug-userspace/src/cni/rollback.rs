//! Undo in reverse. Each step of ADD that changed something leaves its undo here; unless all went well, they run, the
//! last first. An undo that fails is reported beside the first error and never replaces it; where those before it must
//! not run then, it holds them.

use super::Error;
use crate::warning::warn;

struct Undo<'a> {
    work: Box<dyn FnOnce() -> Result<(), Error> + 'a>,
    holds: bool,
}

/// The undos of an ADD under way. Dropped with some left, as by a panic, it runs them too.
#[derive(Default)]
pub(super) struct Rollback<'a> {
    undos: Vec<Undo<'a>>,
}

impl<'a> Rollback<'a> {
    /// Adds an undo for what was just done.
    pub(super) fn push(&mut self, undo: impl FnOnce() -> Result<(), Error> + 'a) {
        self.undos.push(Undo { work: Box::new(undo), holds: false });
    }

    /// The same, for an undo without which those before it must not run: a pod that stays keeps its addresses.
    pub(super) fn hold(&mut self, undo: impl FnOnce() -> Result<(), Error> + 'a) {
        self.undos.push(Undo { work: Box::new(undo), holds: true });
    }

    /// All went well: nothing is undone.
    pub(super) fn commit(mut self) {
        self.undos.clear();
    }

    /// `error` happened: undoes all and returns it, with what could not be undone.
    pub(super) fn run(&mut self, error: Error) -> Error {
        let also = self.undo();
        if also.is_empty() { error } else { Error::Undone { error: Box::new(error), also } }
    }

    /// Runs the undos; what failed of them.
    fn undo(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        for undo in std::mem::take(&mut self.undos).into_iter().rev() {
            if let Err(error) = (undo.work)() {
                failures.push(error.whole());
                if undo.holds {
                    break;
                }
            }
        }
        failures
    }
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        for failure in self.undo() {
            warn(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn undos_run_in_reverse_and_keep_the_first_error() {
        let order = RefCell::new(Vec::new());
        let mut rollback = Rollback::default();
        for step in 0..3 {
            let order = &order;
            rollback.push(move || {
                order.borrow_mut().push(step);
                if step == 1 { Err(Error::config("undo", "failed")) } else { Ok(()) }
            });
        }
        let error = rollback.run(Error::config("add", "failed"));
        assert_eq!(*order.borrow(), [2, 1, 0]);
        assert_eq!(error.to_string(), "add: failed");
        assert_eq!(error.code(), 7);
        assert!(error.to_json("1.0.0")["details"].as_str().unwrap().contains("undo: failed"));
    }

    #[test]
    fn what_an_undo_holds_stays_if_it_fails() {
        for (fails, wanted) in [(true, &[3, 2][..]), (false, &[3, 2, 1])] {
            let order = RefCell::new(Vec::new());
            let mut rollback = Rollback::default();
            rollback.push(|| {
                order.borrow_mut().push(1);
                Ok(())
            });
            rollback.hold(|| {
                order.borrow_mut().push(2);
                if fails { Err(Error::config("undo", "failed")) } else { Ok(()) }
            });
            rollback.push(|| {
                order.borrow_mut().push(3);
                Ok(())
            });
            rollback.run(Error::config("add", "failed"));
            assert_eq!(*order.borrow(), wanted);
        }
    }

    #[test]
    fn what_is_dropped_is_undone() {
        let undone = RefCell::new(false);
        let mut rollback = Rollback::default();
        rollback.push(|| {
            *undone.borrow_mut() = true;
            Ok(())
        });
        drop(rollback);
        assert!(*undone.borrow());
    }

    #[test]
    fn what_is_committed_stays() {
        let mut rollback = Rollback::default();
        rollback.push(|| unreachable!("committed"));
        rollback.commit();
    }
}
