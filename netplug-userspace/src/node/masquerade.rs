//! What networks and operators ask of masquerade, as the state file keeps it, and what comes of it for the node.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// What is asked, by whom.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// By network: the CIDRs that it names, as its last ADD had them.
    exempt: BTreeMap<String, Vec<IpNetwork>>,
    /// By network: where its pods are.
    pods: BTreeMap<String, Vec<IpNetwork>>,
    /// What the last ADD, of whichever network, asked for the node.
    asked: Switches,
    /// What was chosen at run time, over all of that.
    chosen: Choice,
}

/// What is on or off for the whole node.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Switches {
    /// Masquerade at all.
    pub on: bool,
    /// Also to 169.254.0.0/16.
    pub link_local: bool,
    /// Also to fe80::/10.
    pub link_local_ipv6: bool,
}

/// What was chosen at run time; `None` is left to the networks.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// Masquerade at all.
    pub on: Option<bool>,
    /// What is not masqueraded to, pods' own networks aside.
    pub exempt: Option<Vec<IpNetwork>>,
    /// Also to 169.254.0.0/16.
    pub link_local: Option<bool>,
    /// Also to fe80::/10.
    pub link_local_ipv6: Option<bool>,
}

impl Choice {
    /// Takes on what `other` chooses.
    pub fn and(&mut self, other: Self) {
        self.on = other.on.or(self.on);
        self.exempt = other.exempt.or(self.exempt.take());
        self.link_local = other.link_local.or(self.link_local);
        self.link_local_ipv6 = other.link_local_ipv6.or(self.link_local_ipv6);
    }
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is on.
    pub switches: Switches,
    /// What is not masqueraded to, without repetition.
    pub exempt: Vec<IpNetwork>,
}

impl Wishes {
    /// What an ADD of `network` asks.
    pub fn ask(
        &mut self,
        network: &str,
        exempt: Vec<IpNetwork>,
        pods: &[IpNetwork],
        switches: Switches,
    ) {
        self.exempt.insert(network.into(), exempt);
        self.pods.insert(network.into(), pods.into());
        self.asked = switches;
    }

    /// Where pods are, by network.
    pub fn pods(&self) -> impl Iterator<Item = IpNetwork> {
        self.pods.values().flatten().copied()
    }

    /// What was chosen at run time.
    #[must_use]
    pub fn chosen(&self) -> &Choice {
        &self.chosen
    }

    /// The same, to be changed.
    pub fn chosen_mut(&mut self) -> &mut Choice {
        &mut self.chosen
    }

    /// What comes of it for the node.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let Choice { on, exempt, link_local, link_local_ipv6 } = &self.chosen;
        let mut networks: BTreeSet<IpNetwork> = self.pods.values().flatten().copied().collect();
        match exempt {
            Some(exempt) => networks.extend(exempt),
            None => networks.extend(self.exempt.values().flatten()),
        }
        let switches = Switches {
            on: on.unwrap_or(self.asked.on),
            link_local: link_local.unwrap_or(self.asked.link_local),
            link_local_ipv6: link_local_ipv6.unwrap_or(self.asked.link_local_ipv6),
        };
        Outcome { switches, exempt: networks.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_was_chosen_counts_over_what_networks_ask_but_for_their_pods() {
        let on = Switches { on: true, ..Switches::default() };
        let mut wishes = Wishes::default();
        wishes.ask("a", cidrs(&["10.0.0.0/8"]), &cidrs(&["10.244.0.0/24"]), on);
        wishes.ask("b", cidrs(&["192.0.2.0/24"]), &cidrs(&["10.245.0.0/24"]), on);
        let all = ["10.0.0.0/8", "10.244.0.0/24", "10.245.0.0/24", "192.0.2.0/24"];
        assert_eq!(wishes.outcome(), Outcome { switches: on, exempt: cidrs(&all) });
        let first = Choice { exempt: Some(cidrs(&["198.51.100.0/24"])), ..Choice::default() };
        wishes.chosen_mut().and(first);
        wishes.chosen_mut().and(Choice { on: Some(false), ..Choice::default() });
        wishes.ask("a", cidrs(&["0.0.0.0/0"]), &cidrs(&["10.244.0.0/24"]), on);
        let left = ["10.244.0.0/24", "10.245.0.0/24", "198.51.100.0/24"];
        let outcome = Outcome { switches: Switches::default(), exempt: cidrs(&left) };
        assert_eq!(wishes.outcome(), outcome);
    }
}
