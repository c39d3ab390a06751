//! Sysctls that netplug changed: what they were, for whom, and how they are put back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Error, sysctl};

/// A sysctl that netplug changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its path below /proc/sys.
    pub name: String,
    /// What it was.
    pub was: String,
    /// What netplug made of it.
    pub became: String,
    /// What netplug had made of it before: what it still is if netplug was killed before it wrote.
    #[serde(default)]
    pub before: Option<String>,
    /// Whether it is a device's, and need not be known once that is gone.
    #[serde(default)]
    pub goes: bool,
    /// The bridges for whose adoption alone it was changed, and with the last of which it is put back; none: pods want it so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub adopted: BTreeSet<String>,
}

impl Change {
    /// Whether a sysctl that is `found` is as netplug left it.
    pub(super) fn is_ours(&self, found: &str) -> bool {
        self.became == found || self.before.as_deref() == Some(found)
    }

    /// Has it be wanted for a bridge's adoption, or by pods. Whether that is news: what pods want stays until `unload` anyway.
    pub(super) fn is_wanted_by(&mut self, bridge: Option<&str>) -> bool {
        match bridge {
            _ if self.adopted.is_empty() => false,
            Some(bridge) => self.adopted.insert(bridge.into()),
            None => {
                self.adopted.clear();
                true
            }
        }
    }
}

/// Puts back what sysctls were, where nobody else has changed them since. Returns what was done.
pub(super) fn put_back(changes: &[Change]) -> Result<Vec<String>, Error> {
    let mut ours = Vec::new();
    for change in changes.iter().rev() {
        // All are looked at before one is written, which may change others.
        if sysctl::get(&change.name)?.is_some_and(|found| change.is_ours(&found)) {
            ours.push(change);
        }
    }
    let mut done = Vec::new();
    for Change { name, was, .. } in ours {
        sysctl::write(name, was)?;
        done.push(format!("{name} is {was} again"));
    }
    Ok(done)
}
