//! What changes without a packet: epochs, pods that are taken away, time.

use crate::model::cache::REVISIT;
use crate::model::cast::WEB;
use crate::model::host::{Connection, Deletion};
use crate::model::node::{Node, Scene};
use crate::model::packet::Stage;
use crate::model::rules::Rules;
use crate::tuple::TCP;

/// Ticks of silence after which conntrack forgets a flow of UDP's without the cache. (An open connection of TCP's it keeps for
/// days.)
const TIMEOUT: u8 = 3;

impl Node {
    /// Another epoch begins.
    pub fn end_epoch(&mut self, rules: &Rules) {
        self.cache.end_epoch();
        self.promise.end_epoch();
        for packet in &mut self.hands {
            packet.is_old = true;
            if rules.hash_of_epoch {
                // No visit's any more.
                packet.hash = 0;
            }
            if let Stage::Learned(_, learned) = &mut packet.stage {
                learned.end_epoch();
            }
        }
    }

    /// A tick passes.
    pub fn pass_time(&mut self, scene: &Scene<'_>) {
        self.cache.pass_time();
        self.promise.pass_time();
        for packet in &mut self.hands {
            if let Stage::Learned(_, learned) = &mut packet.stage {
                learned.pass_time();
            }
        }
        let timeout = |known: &Connection| match known.original.protocol {
            TCP if !(scene.world.closed_expire && known.is_closed) => None,
            _ => Some(TIMEOUT),
        };
        let put_off = |known: &Connection| {
            let is_tcp = known.original.protocol == TCP;
            if is_tcp { scene.rules.late_closings } else { scene.rules.late_timeouts }
        };
        self.host
            .pass_time(|known| Some(timeout(known)? + if put_off(known) { REVISIT } else { 0 }));
        // When exactly is the kernel's affair: no sooner than without the cache, and no later than with it.
        let host = &self.host;
        self.reference.pass_time(|known| {
            Some(timeout(known)? + if host.knows(&known.original) { REVISIT } else { 0 })
        });
    }

    /// DEL of [`WEB`] goes a step further.
    pub fn delete(&mut self, rules: &Rules) {
        let deletion = &mut self.policy.deletion;
        *deletion = match *deletion {
            Deletion::None => Deletion::First,
            Deletion::First => Deletion::Second,
            Deletion::Second | Deletion::Gone => Deletion::Gone,
        };
        match *deletion {
            Deletion::First if !rules.unregisters_first => self.end_epoch(rules),
            Deletion::Second if rules.unregisters_first => self.end_epoch(rules),
            Deletion::Gone => {
                // To a pod that is gone nothing may be sent, however lately one might.
                self.promise.end_epoch();
                self.hands.retain(|packet| packet.way().is_none_or(|way| way.by != WEB));
            }
            _ => {}
        }
    }

    /// Whether the datapath knows [`WEB`]'s address.
    pub fn is_web_registered(&self, rules: &Rules) -> bool {
        match self.policy.deletion {
            Deletion::None => true,
            Deletion::First => !rules.unregisters_first,
            Deletion::Second | Deletion::Gone => false,
        }
    }
}
