//! What netplug changed on the node and will put back: earlier values of sysctls. Its bridges tell by their alias; until
//! they have one, they are on file. Also kept here: what networks and operators ask of masquerade, since the datapath has
//! one answer for all of them, which uplinks the last ADD wanted, and which bridges are adopted, for who looks after them.
//!
//! Of addresses that bridges were given it is known, too, until an ADD ends well with them: the last that fails takes them back.
//!
//! What a sysctl was is on file before the sysctl changes, so that a crash between the two forgets nothing. It is put back
//! only where nobody else has changed it since, and in reverse: some sysctls change others as they are written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use atomic_write_file::AtomicWriteFile;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::link::Link;
use super::sysctl_change::{Change, put_back};
use super::{Error, Mac, Netlink, bridge, masquerade, sysctl};

const FOLDER: &str = "/run/netplug";

/// The state file's content.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    sysctls: Vec<Change>,
    /// Names and MACs of bridges that netplug made, or was about to.
    made: BTreeSet<(String, Mac)>,
    /// Indexes of others' bridges whose MAC was made to stay.
    bridges: BTreeSet<u32>,
    /// Addresses that netplug gave to others' bridges, by their index.
    addresses: BTreeSet<(u32, IpNetwork)>,
    /// Addresses of others' bridges that had to go, by the bridge's index.
    taken: BTreeSet<(u32, IpNetwork)>,
    /// Addresses that bridges, whoever made them, were given by ADDs of which none has ended well yet.
    unsettled: Vec<Unsettled>,
    #[serde(flatten)]
    masquerade: masquerade::Wishes,
    uplinks: UplinkChoice,
    /// Names of adopted bridges, there or not.
    adopted: BTreeSet<String>,
    /// The bridge for whose adoption sysctls are changed just now; none: for pods.
    #[serde(skip)]
    adopts: Option<String>,
}

/// An address that a bridge was given, and that the last ADD to fail takes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Unsettled {
    bridge: u32,
    address: IpNetwork,
    /// The bridge's ports before: who has come since may count on the address.
    ports: BTreeSet<u32>,
}

/// Which uplinks the last ADD wanted.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UplinkChoice {
    /// Those of these names; or else those of default routes.
    pub named: Option<Vec<String>>,
    /// Those that were named before; they stay while there is no default route, which alone would tell.
    pub kept: Option<Vec<String>>,
    /// How programs are attached to them, in the configuration's word.
    pub attach: String,
}

impl UplinkChoice {
    /// Whether uplinks are there that were named.
    #[must_use]
    pub fn were_named(&self) -> bool {
        self.named.is_some() || self.kept.is_some()
    }
}

impl State {
    /// Keeps what sysctls were, before they change. Where somebody else has changed one since netplug did, theirs is what
    /// will be put back.
    pub fn remember(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), Error> {
        self.sysctls.retain(|known| !known.goes || sysctl::is_there(&known.name));
        for mut change in changes {
            match self.sysctls.iter_mut().find(|known| known.name == change.name) {
                Some(known) => {
                    if !known.is_ours(&change.was) {
                        known.was = change.was;
                    }
                    known.before = Some(std::mem::replace(&mut known.became, change.became));
                    known.is_wanted_by(self.adopts.as_deref());
                }
                None => {
                    change.adopted.extend(self.adopts.clone());
                    self.sysctls.push(change);
                }
            }
        }
        save(self)
    }

    /// Keeps that some of the sysctls that netplug changed are wanted so now, too, where that is news.
    pub fn want(&mut self, which: impl Fn(&Change) -> bool) -> Result<(), Error> {
        let mut is_news = false;
        for known in self.sysctls.iter_mut().filter(|known| which(known)) {
            is_news |= known.is_wanted_by(self.adopts.as_deref());
        }
        if is_news { save(self) } else { Ok(()) }
    }

    /// The bridges that are adopted, by name.
    #[must_use]
    pub fn adopted(&self) -> &BTreeSet<String> {
        &self.adopted
    }

    /// Keeps that a bridge is adopted.
    pub fn adopt(&mut self, bridge: &str) -> Result<(), Error> {
        if self.adopted.insert(bridge.into()) { save(self) } else { Ok(()) }
    }

    /// Changes sysctls for the adoption of a bridge.
    pub fn for_adopted<T>(&mut self, bridge: &str, change: impl FnOnce(&mut Self) -> T) -> T {
        self.adopts = Some(bridge.into());
        let done = change(self);
        self.adopts = None;
        done
    }

    /// Puts back what was changed for a bridge's adoption alone, and keeps that it is adopted no more. Returns what was done.
    pub fn release(&mut self, bridge: &str) -> Result<Vec<String>, Error> {
        let (mut free, mut others) = (Vec::new(), Vec::new());
        for mut known in self.sysctls.clone() {
            let was_last = known.adopted.remove(bridge) && known.adopted.is_empty();
            if was_last { free.push(known) } else { others.push(known) }
        }
        let mut stay = Vec::new();
        for known in &others {
            if let Some(found) = sysctl::get(&known.name)?.filter(|found| known.is_ours(found)) {
                stay.push((&known.name, found));
            }
        }
        let done = put_back(&free)?;
        // Some change others as they are written.
        for (name, value) in stay {
            if sysctl::get(name)?.is_some_and(|found| found != value) {
                sysctl::write(name, &value)?;
            }
        }
        self.sysctls = others;
        self.adopted.remove(bridge);
        save(self).map(|()| done)
    }

    /// What the sysctl `name`, which is `found` now, was before netplug changed it, if it did and nobody has since.
    #[must_use]
    pub fn before<'a>(&'a self, name: &str, found: &'a str) -> &'a str {
        let ours = self.sysctls.iter().find(|known| known.name == name && known.is_ours(found));
        ours.map_or(found, |known| &known.was)
    }

    /// Keeps that netplug makes a bridge, before it does.
    pub fn makes(&mut self, name: &str, mac: Mac) -> Result<(), Error> {
        self.made.insert((name.into(), mac));
        save(self)
    }

    /// Whether netplug made a bridge, be it that it was killed before the bridge could say so.
    #[must_use]
    pub fn has_made(&self, bridge: &Link) -> bool {
        self.made.iter().any(|(name, mac)| *name == bridge.name && *mac == bridge.mac)
    }

    /// Whether the MAC of another's bridge was made to stay.
    #[must_use]
    pub fn is_fixed(&self, bridge: &Link) -> bool {
        self.bridges.contains(&bridge.index)
    }

    /// Keeps that it was.
    pub fn fixed(&mut self, bridge: &Link) -> Result<(), Error> {
        self.bridges.insert(bridge.index);
        save(self)
    }

    /// Keeps that netplug gives a bridge with `ports` an address, before it does.
    pub fn gives(
        &mut self,
        bridge: &Link,
        is_ours: bool,
        address: IpNetwork,
        ports: BTreeSet<u32>,
    ) -> Result<(), Error> {
        if !is_ours {
            self.addresses.insert((bridge.index, address));
        }
        let is_it = |known: &Unsettled| known.bridge == bridge.index && known.address == address;
        if !self.unsettled.iter().any(is_it) {
            self.unsettled.push(Unsettled { bridge: bridge.index, address, ports });
        }
        save(self)
    }

    /// Keeps what was so `before`, for who did not do what he kept.
    pub fn go_back_to(&mut self, before: Self) -> Result<(), Error> {
        *self = before;
        save(self)
    }

    /// The addresses that a bridge with `ports` was given by ADDs that failed: no port has come since.
    #[must_use]
    pub fn given_for_nobody(&self, bridge: &Link, ports: &BTreeSet<u32>) -> Vec<IpNetwork> {
        let is_for_nobody =
            |it: &&Unsettled| it.bridge == bridge.index && ports.is_subset(&it.ports);
        self.unsettled.iter().filter(is_for_nobody).map(|it| it.address).collect()
    }

    /// Has a bridge's addresses stay, with which an ADD ends well, for who [prepares](Self::prepare) that.
    pub fn settle(&mut self, bridge: &Link, addresses: &[IpNetwork]) {
        let is_settled =
            |it: &Unsettled| it.bridge == bridge.index && addresses.contains(&it.address);
        self.unsettled.retain(|it| !is_settled(it));
    }

    /// Keeps that netplug takes an address from another's bridge, before it does. One that netplug gave is nobody's loss.
    pub fn takes(&mut self, bridge: &Link, address: IpNetwork) -> Result<(), Error> {
        if !self.addresses.remove(&(bridge.index, address)) {
            self.taken.insert((bridge.index, address));
        }
        save(self)
    }

    /// Keeps that a bridge has `old` again and `new` no more. `old` of another's that nobody lost was netplug's.
    pub fn took_back(
        &mut self,
        bridge: &Link,
        is_ours: bool,
        new: &[IpNetwork],
        old: &[IpNetwork],
    ) -> Result<(), Error> {
        self.settle(bridge, new);
        for address in new {
            self.addresses.remove(&(bridge.index, *address));
        }
        for address in old.iter().filter(|_| !is_ours) {
            if !self.taken.remove(&(bridge.index, *address)) {
                self.addresses.insert((bridge.index, *address));
            }
        }
        save(self)
    }

    /// What is asked of masquerade.
    #[must_use]
    pub fn masquerade(&self) -> &masquerade::Wishes {
        &self.masquerade
    }

    /// Changes what is asked of masquerade, for who [prepares](Self::prepare) that.
    pub fn ask_masquerade(&mut self, wishes: masquerade::Wishes) {
        self.masquerade = wishes;
    }

    /// Which uplinks the last ADD wanted.
    #[must_use]
    pub fn uplinks(&self) -> &UplinkChoice {
        &self.uplinks
    }

    /// Changes which uplinks are wanted, for who [prepares](Self::prepare) that.
    pub fn want_uplinks(&mut self, choice: UplinkChoice) {
        self.uplinks = choice;
    }

    /// Writes beside the state file what it is to be after `change`: once that counts, room is not wanting to [keep](Self::keep)
    /// it.
    pub fn prepare(&self, change: impl FnOnce(&mut Self)) -> Result<Prepared, Error> {
        let mut state = self.clone();
        change(&mut state);
        let file = if state == *self { None } else { Some(write(&state)?) };
        Ok(Prepared { state, file })
    }

    /// Keeps what was prepared, from which nothing else has been changed since.
    pub fn keep(&mut self, prepared: Prepared) -> Result<(), Error> {
        *self = prepared.state;
        prepared.file.map_or(Ok(()), put_in_place)
    }
}

/// A state that is on disk, and not the one that counts. Gone if it is dropped.
pub struct Prepared {
    state: State,
    /// None where it differs in nothing.
    file: Option<AtomicWriteFile>,
}

fn path() -> PathBuf {
    Path::new(FOLDER).join("state.json")
}

/// Lets `change` change the state and the node, under a lock.
pub fn with<T, E: From<Error>>(change: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
    let _lock = lock()?;
    change(&mut read()?)
}

/// Puts back what was kept: sysctls as they were, others' bridges with their addresses and without ours, bridges of ours gone where they have
/// no ports. Returns what was done.
pub fn restore() -> Result<Vec<String>, Error> {
    let kept = bridge::Kept::alone()?;
    let _lock = lock()?;
    let state = read()?;
    let released = state.adopted.iter().map(|bridge| format!("{bridge} is adopted no more"));
    let mut done: Vec<_> = released.collect();
    done.extend(put_back(&state.sysctls)?);
    let netlink = Netlink::open()?;
    for (index, address) in &state.addresses {
        if let Some(bridge) = netlink.link_of_index(*index)? {
            netlink.remove_address(&bridge, *address)?;
            done.push(format!("{} has {address} no more", bridge.name));
        }
    }
    for (index, address) in &state.taken {
        if let Some(bridge) = netlink.link_of_index(*index)? {
            netlink.add_address(&bridge, *address)?;
            done.push(format!("{} has {address} again", bridge.name));
        }
    }
    for link in netlink.links()?.iter().filter(|link| link.is_bridge()) {
        if bridge::remove(&netlink, link, &state, &kept)? {
            done.push(format!("the bridge {} is gone", link.name));
        }
    }
    match fs::remove_file(path()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(fail("remove", source)),
        _ => Ok(done),
    }
}

fn fail(verb: &'static str, source: io::Error) -> Error {
    Error::System { verb, object: path().display().to_string(), source }
}

fn lock() -> Result<File, Error> {
    let file = lock_file("node.lock").map_err(|source| fail("lock", source))?;
    file.lock().map_err(|source| fail("lock", source))?;
    Ok(file)
}

/// A file that is there to be locked.
pub(super) fn lock_file(name: &str) -> io::Result<File> {
    fs::create_dir_all(FOLDER)?;
    File::options().create(true).append(true).open(Path::new(FOLDER).join(name))
}

fn read() -> Result<State, Error> {
    match fs::read(path()) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| Error::State { path: path(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::default()),
        Err(source) => Err(fail("read", source)),
    }
}

fn save(state: &State) -> Result<(), Error> {
    put_in_place(write(state)?)
}

fn write(state: &State) -> Result<AtomicWriteFile, Error> {
    let bytes =
        serde_json::to_vec_pretty(state).map_err(|source| Error::State { path: path(), source })?;
    let write = || {
        let mut file = AtomicWriteFile::open(path())?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        Ok(file)
    };
    write().map_err(|source| fail("write", source))
}

fn put_in_place(file: AtomicWriteFile) -> Result<(), Error> {
    file.commit().map_err(|source| fail("write", source))
}
