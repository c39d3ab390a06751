//! Sysctls of the calling thread's namespace. Written only where they differ; what they were is kept, so that
//! `netplug unload` can put it back.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::Error;
use super::state::State;

fn path(name: &str) -> PathBuf {
    // Interface names may have dots; keys are written with slashes.
    PathBuf::from("/proc/sys").join(name)
}

/// The value of a sysctl, by its path below /proc/sys; `None` where the kernel has none of that name.
pub fn get(name: &str) -> Result<Option<String>, Error> {
    match fs::read_to_string(path(name)) {
        Ok(value) => Ok(Some(value.trim().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => {
            Err(Error::System { verb: "read", object: path(name).display().to_string(), source })
        }
    }
}

/// Writes a sysctl without remembering what it was.
pub fn write(name: &str, value: &str) -> Result<(), Error> {
    fs::write(path(name), value).map_err(|source| Error::Sysctl {
        name: name.into(),
        value: value.into(),
        source,
    })
}

/// Makes a sysctl `value`, remembering in `state` what it was. `false`: the kernel has none of that name.
pub fn ensure(state: &mut State, name: &str, value: &str) -> Result<bool, Error> {
    match get(name)? {
        None => Ok(false),
        Some(found) if found == value => Ok(true),
        Some(found) => {
            state.remember(name, &found)?;
            write(name, value)?;
            Ok(true)
        }
    }
}

/// Makes a sysctl of a device of ours `value`, without remembering: it goes with the device. Content where the kernel
/// has none of that name.
pub fn of_device(name: &str, value: &str) -> Result<(), Error> {
    match get(name)? {
        Some(found) if found != value => write(name, value),
        _ => Ok(()),
    }
}
