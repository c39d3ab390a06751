//! A packet's way: past the cache, or through the host's hands and out, where it is learned from.

use crate::decide::identity::Identity;
use crate::decide::opening::Moment;
use crate::model::cache::Learned;
use crate::model::cast::{OTHER, Phrase, WEB, pod_at};
use crate::model::host::{Policy, Way};
use crate::model::node::{Node, Scene, Violation};

/// A packet in the host's hands.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// What it says.
    pub phrase: u8,
    /// Tells it from others of its phrase.
    pub serial: u8,
    /// What it carries; 0 if it was not noted.
    pub hash: u32,
    /// Whether it entered in another epoch.
    pub is_old: bool,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a packet has come.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// It was handed to the host.
    Entered,
    /// The host let it through.
    Decided(Way),
    /// It is leaving, and this is about to be written.
    Learned(Way, Learned),
}

impl Packet {
    /// What the host made of it.
    pub fn way(&self) -> Option<Way> {
        match self.stage {
            Stage::Entered => None,
            Stage::Decided(way) | Stage::Learned(way, _) => Some(way),
        }
    }
}

impl Node {
    /// A phrase enters: by the cache, or into the host's hands.
    pub fn say(&mut self, scene: &Scene<'_>, phrase: u8, is_noted: bool) -> Result<(), Violation> {
        let said = scene.world.phrases[usize::from(phrase)];
        let short = self.short_way(scene, &said);
        if let Some(way) = short {
            self.check(phrase, Some(way))?;
        }
        if said.moment() == Moment::Opening {
            self.promise.begin_anew(&scene.world.phrases, &said.tuple);
        }
        if short.is_some() {
            if said.moment() != Moment::Underway || self.reference.knows(&said.tuple) {
                self.reference.decide(&self.policy, &said);
            }
            return Ok(());
        }
        let serial = (0..).find(|serial| self.hands.iter().all(|held| held.serial != *serial));
        let serial = serial.expect("there are few packets");
        let mut hash = 0;
        if is_noted {
            let identity = scene.identity(phrase, serial);
            hash = self.cache.remember(&said, identity, scene.world.hash_mask);
        }
        self.hands.push(Packet { phrase, serial, hash, is_old: false, stage: Stage::Entered });
        if scene.world.hands == 0 { self.visit(scene) } else { Ok(()) }
    }

    fn short_way(&mut self, scene: &Scene<'_>, said: &Phrase) -> Option<Way> {
        let cached = self.cache.follow(said, scene.rules);
        if cached.is_some() || scene.rules.miss_visits {
            return cached;
        }
        pod_at(said.tuple.destination).map(|by| Way { by, tuple: said.tuple })
    }

    /// The only packet in the host's hands goes its whole way.
    fn visit(&mut self, scene: &Scene<'_>) -> Result<(), Violation> {
        self.decide(scene, 0)?;
        if !self.hands.is_empty() {
            self.leave(scene, 0);
        }
        if !self.hands.is_empty() {
            self.write(scene, 0);
        }
        Ok(())
    }

    /// The host decides, and so does the other node's.
    pub fn decide(&mut self, scene: &Scene<'_>, at: usize) -> Result<(), Violation> {
        let packet = self.hands[at];
        let said = scene.world.phrases[usize::from(packet.phrase)];
        let unfiltered = self.host.would(&Policy { drops: None, ..self.policy }, &said);
        let outcome = self.host.decide(&self.policy, &said);
        let expected = self.reference.decide(&self.policy, &said);
        if outcome != expected {
            self.check(packet.phrase, outcome)?;
        }
        if let Some(way) = outcome {
            self.hands[at].stage = Stage::Decided(way);
            return Ok(());
        }
        self.hands.remove(at);
        if !scene.rules.let_through
            && let Some(way) = unfiltered
            && let Some(learned) = self.learn(scene, &packet, &way)
        {
            self.cache.write(&learned, scene.rules);
        }
        Ok(())
    }

    /// A packet leaves; what it teaches is decided.
    pub fn leave(&mut self, scene: &Scene<'_>, at: usize) {
        let packet = self.hands[at];
        let Stage::Decided(way) = packet.stage else { return };
        match self.learn(scene, &packet, &way) {
            Some(learned) => self.hands[at].stage = Stage::Learned(way, learned),
            None => self.leave_hands(scene, at, way),
        }
    }

    /// What it teaches is written.
    pub fn write(&mut self, scene: &Scene<'_>, at: usize) {
        let Stage::Learned(way, learned) = self.hands[at].stage else { return };
        self.cache.write(&learned, scene.rules);
        if let Some(left) = learned.translated() {
            self.promise.give(&scene.world.phrases, &left);
            self.promise.give(&scene.world.phrases, &left.reversed());
        }
        self.leave_hands(scene, at, way);
    }

    /// A copy leaves by the port of a pod that it is not for.
    pub fn flood(&mut self, scene: &Scene<'_>, at: usize) {
        let packet = self.hands[at];
        let Stage::Decided(way) = packet.stage else { return };
        let copy = Way { by: if way.by == OTHER { WEB } else { OTHER }, ..way };
        if let Some(learned) = self.learn(scene, &packet, &copy) {
            self.cache.write(&learned, scene.rules);
        }
    }

    fn learn(&self, scene: &Scene<'_>, packet: &Packet, way: &Way) -> Option<Learned> {
        let is_for_web = pod_at(way.tuple.destination) == Some(WEB);
        if packet.hash == 0 || is_for_web && !self.is_web_registered(scene.rules) {
            return None;
        }
        let identity = scene.identity(packet.phrase, packet.serial);
        self.cache.learn(packet.hash, &identity, way, scene.rules)
    }

    fn leave_hands(&mut self, scene: &Scene<'_>, at: usize, way: Way) {
        let packet = self.hands.remove(at);
        let asked = scene.world.phrases[usize::from(packet.phrase)].tuple.reversed();
        if scene.world.are_answers_fresh {
            self.promise.give_to(&scene.world.phrases, &way.tuple.reversed(), &asked);
        }
        if !packet.is_old {
            self.promise.renew(packet.phrase, Some(way));
        }
    }
}

impl Scene<'_> {
    /// By what a packet is recognised.
    fn identity(&self, phrase: u8, serial: u8) -> Identity {
        let said = self.world.phrases[usize::from(phrase)];
        let serial = if self.world.alike { 0 } else { serial };
        Identity {
            length: Identity::length_word(100, 63, said.tuple.protocol),
            id: u32::from(phrase) << 8 | u32::from(serial),
            ..Identity::default()
        }
    }
}
