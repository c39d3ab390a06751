//! Where programs, maps and links are pinned, and who may change that: one folder, one lock.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use netplug_common::maps::LAYOUT;

use super::attach::{PROGRAMS, detach};
use super::{Error, clsact, maps};

const BPFFS: &str = "/sys/fs/bpf";
const LOADING: &str = "/run/netplug/load.lock";
const SETTINGS: &str = "/run/netplug/settings.lock";
const ADDRESSES: &str = "/run/netplug/addresses.lock";
/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The folder of this layout's pins.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(BPFFS).join("netplug").join(format!("v{LAYOUT}"))
}

pub(super) fn path(name: &str) -> PathBuf {
    directory().join(name)
}

/// Whether every map and program is pinned.
pub(super) fn is_loaded() -> bool {
    maps::NAMES.iter().chain(PROGRAMS).all(|name| path(name).exists())
}

/// Mounts bpffs where it is missing and makes the folder.
pub(super) fn prepare() -> Result<(), Error> {
    let mounted = rustix::fs::statfs(BPFFS).is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC);
    if !mounted {
        rustix::mount::mount("bpf", BPFFS, "bpf", rustix::mount::MountFlags::empty(), None)
            .map_err(|source| Error::Mount { path: BPFFS.into(), source: source.into() })?;
    }
    let directory = directory();
    fs::create_dir_all(&directory).map_err(|source| Error::File {
        verb: "make",
        path: directory,
        source,
    })
}

/// Has other processes wait; released when dropped. Who needs both takes the one of loading first.
pub struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// For who makes or removes pins: waits for everybody else.
    pub fn exclusive() -> Result<Self, Error> {
        Self::take(LOADING, File::lock)
    }

    /// For who needs what is loaded to stay.
    pub fn shared() -> Result<Self, Error> {
        Self::take(LOADING, File::lock_shared)
    }

    /// For who reads CONFIG or UPLINKS and writes back what it made of them.
    pub(super) fn of_settings() -> Result<Self, Error> {
        Self::take(SETTINGS, File::lock)
    }

    /// For who looks whose an address is and then writes or removes it. Held for as long as that takes, and while no other lock
    /// is waited for.
    pub(super) fn of_addresses() -> Result<Self, Error> {
        Self::take(ADDRESSES, File::lock)
    }

    fn take(path: &str, lock: fn(&File) -> io::Result<()>) -> Result<Self, Error> {
        let fail = |verb| move |source| Error::File { verb, path: path.into(), source };
        if let Some(folder) = Path::new(path).parent() {
            fs::create_dir_all(folder).map_err(fail("make the folder of"))?;
        }
        let file = File::options().create(true).append(true).open(path).map_err(fail("open"))?;
        lock(&file).map_err(fail("lock"))?;
        Ok(Self(file))
    }
}

/// Removes a pin; content if there is none.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { verb: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Detaches every program, removes every pin, of every layout; the maps and programs go with them. Returns what was
/// removed. Interfaces and addresses are not touched. `_lock` is an exclusive one.
pub fn unload(_lock: &Lock) -> Result<Vec<PathBuf>, Error> {
    let root = Path::new(BPFFS).join("netplug");
    let mut removed = Vec::new();
    // By the devices, not the maps, which may be lost, or another netplug's.
    for ifindex in clsact::devices()? {
        for program in PROGRAMS {
            detach(ifindex, program)?;
        }
        clsact::give_back(ifindex)?;
    }
    remove_tree(&root, &mut removed)?;
    remove(Path::new(super::load::LOADED))?;
    Ok(removed)
}

fn remove_tree(folder: &Path, removed: &mut Vec<PathBuf>) -> Result<(), Error> {
    let fail = |source| Error::File { verb: "remove", path: folder.into(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(fail(source)),
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let path = entry.path();
        if entry.file_type().map_err(fail)?.is_dir() {
            remove_tree(&path, removed)?;
        } else {
            remove(&path)?;
            removed.push(path);
        }
    }
    fs::remove_dir(folder).map_err(fail)
}
