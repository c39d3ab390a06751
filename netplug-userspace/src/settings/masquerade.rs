//! Masquerade of a node that runs: what it is, and what an operator or a watched file makes of it.

use super::Error;
use super::agent_file::AgentFile;
use crate::datapath::{Datapath, Lock, Masquerade};
use crate::node::masquerade::{Choice, Outcome};
use crate::node::state;

/// Whether flows are as they were after a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The datapath does as it did.
    Same,
    /// It does otherwise from now on.
    Changed,
    /// None is loaded; the first ADD's will.
    Later,
}

impl From<&AgentFile> for Choice {
    fn from(file: &AgentFile) -> Self {
        Self {
            on: None,
            exempt: Some(file.non_masquerade.clone()),
            link_local: Some(file.masq_link_local),
            link_local_ipv6: Some(file.masq_link_local_ipv6),
        }
    }
}

impl From<Outcome> for Masquerade {
    fn from(Outcome { switches, exempt }: Outcome) -> Self {
        Self {
            on: switches.on,
            link_local: switches.link_local,
            link_local_ipv6: switches.link_local_ipv6,
            exempt,
        }
    }
}

/// Changes what was chosen at run time, and has the datapath do so. What it refuses is not kept, nor done what cannot be kept.
pub fn choose(change: impl FnOnce(&mut Choice)) -> Result<Effect, Error> {
    let _loaded = Lock::shared()?;
    let datapath = Datapath::open()?;
    state::with(|state| {
        let mut wishes = state.masquerade().clone();
        change(wishes.chosen_mut());
        let wanted = Masquerade::from(wishes.outcome());
        wanted.check()?;
        let prepared = state.prepare(|after| after.ask_masquerade(wishes))?;
        let effect = match &datapath {
            Some(datapath) => {
                if datapath.set_masquerade(&wanted)? {
                    Effect::Changed
                } else {
                    Effect::Same
                }
            }
            None => Effect::Later,
        };
        state.keep(prepared)?;
        Ok(effect)
    })
}

/// What was chosen at run time.
pub fn chosen() -> Result<Choice, Error> {
    state::with(|state| Ok(state.masquerade().chosen().clone()))
}
