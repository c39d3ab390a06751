//! What netplug changed on the node and will put back: earlier values of sysctls. Its bridges tell by their alias.
//! What a sysctl was is on file before the sysctl changes, so that a crash between the two forgets nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Netlink, bridge, sysctl};

const FOLDER: &str = "/run/netplug";

/// The state file's content.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Sysctls by their path below /proc/sys, with what they were before.
    sysctls: BTreeMap<String, String>,
}

impl State {
    /// Keeps what a sysctl was, if that is not kept yet.
    pub fn remember(&mut self, name: &str, value: &str) -> Result<(), Error> {
        if !self.sysctls.contains_key(name) {
            self.sysctls.insert(name.into(), value.into());
            save(self)?;
        }
        Ok(())
    }
}

fn path() -> PathBuf {
    Path::new(FOLDER).join("node.json")
}

/// Lets `change` change the state and the node, under a lock.
pub fn with<T, E: From<Error>>(change: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
    let _lock = lock()?;
    change(&mut read()?)
}

/// Puts everything back: sysctls as they were, bridges of ours gone where they have no ports. Returns what was done.
pub fn restore() -> Result<Vec<String>, Error> {
    let _lock = lock()?;
    let state = read()?;
    let mut done = Vec::new();
    for (name, value) in &state.sysctls {
        match sysctl::get(name)? {
            Some(found) if found != *value => {
                sysctl::write(name, value)?;
                done.push(format!("{name} is {value} again"));
            }
            _ => {}
        }
    }
    let netlink = Netlink::open()?;
    for link in netlink.links()?.iter().filter(|link| link.is_bridge()) {
        if bridge::remove(&netlink, &link.name)? {
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
    fs::create_dir_all(FOLDER).map_err(|source| fail("make the folder of", source))?;
    let lock = Path::new(FOLDER).join("node.lock");
    let file = File::options()
        .create(true)
        .append(true)
        .open(lock)
        .map_err(|source| fail("lock", source))?;
    file.lock().map_err(|source| fail("lock", source))?;
    Ok(file)
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
    let bytes =
        serde_json::to_vec_pretty(state).map_err(|source| Error::State { path: path(), source })?;
    let write = || {
        let mut file = atomic_write_file::AtomicWriteFile::open(path())?;
        file.write_all(&bytes)?;
        file.commit()
    };
    write().map_err(|source| fail("write", source))
}
