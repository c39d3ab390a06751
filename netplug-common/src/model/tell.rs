//! What happens, in words: counterexamples are read by people.

use crate::model::action::Action;
use crate::model::cast::{name, show};
use crate::model::node::Node;
use crate::model::packet::Packet;
use crate::model::world::World;

impl Node {
    /// The action in words.
    pub fn tell(&self, world: &World, action: Action) -> String {
        let packet = |at: u8| {
            let Packet { phrase, serial, .. } = self.hands[usize::from(at)];
            let number = if serial == 0 { String::new() } else { format!(" (no. {})", serial + 1) };
            let tuple = show(&world.phrases[usize::from(phrase)].tuple);
            match self.hands[usize::from(at)].way() {
                None => format!("{tuple}{number}"),
                Some(way) => format!("{tuple}{number} as {} to {}", show(&way.tuple), name(way.by)),
            }
        };
        match action {
            Action::Say(phrase) => world.phrases[usize::from(phrase)].to_string(),
            Action::SayAside(phrase) => {
                format!("{}, of which no note is taken", world.phrases[usize::from(phrase)])
            }
            Action::Decide(at) => format!("the host decides about {}", packet(at)),
            Action::Leave(at) => format!("leaves: {}", packet(at)),
            Action::Write(at) => format!("is learned: {}", packet(at)),
            Action::Flood(at) => format!("is flooded: {}", packet(at)),
            Action::Lose(at) => format!("is lost: {}", packet(at)),
            Action::Rule if self.policy.drops.is_none() => "the firewall rule is added".into(),
            Action::Rule => "the firewall rule is removed".into(),
            Action::Endpoint => "the services' endpoint changes".into(),
            Action::Route => "the route outside changes".into(),
            Action::Forget(at) => {
                let known = &self.reference.connections[usize::from(at)];
                format!("conntrack is made to forget {}", show(&known.original))
            }
            Action::EvictFlow(at) => {
                format!("FLOWS loses {}", show(&self.cache.flows[usize::from(at)].0))
            }
            Action::EvictVisit(at) => {
                format!("VISITS loses {}", show(&self.cache.visits[usize::from(at)].1.entered))
            }
            Action::Epoch => "another epoch begins".into(),
            Action::Delete => "DEL of web goes a step further".into(),
            Action::Tick => "a tick passes".into(),
        }
    }
}
