//! Sysctls of the calling thread's namespace. Written only where they differ; what they were is kept, so that
//! `netplug unload` can put it back.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::Error;
use super::link::Link;
use super::state::State;
use super::sysctl_change::Change;

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

/// Whether the kernel has a sysctl of that name.
#[must_use]
pub fn is_there(name: &str) -> bool {
    path(name).exists()
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
    ensure_until(state, name, value, false)
}

/// Has the node forward what comes in by a device, and remembers that for as long as the device is there. One that came since the
/// node forwards does as the default for new ones says. (IPv6 asks `all` alone.)
pub fn forward_from(state: &mut State, device: &Link) -> Result<(), Error> {
    ensure_until(state, &format!("net/ipv4/conf/{}/forwarding", device.name), "1", true).map(drop)
}

fn ensure_until(state: &mut State, name: &str, value: &str, goes: bool) -> Result<bool, Error> {
    match get(name)? {
        None => Ok(false),
        Some(found) if found == value => {
            state.want(|known| known.name == name)?;
            Ok(true)
        }
        Some(found) => {
            state.remember([Change { goes, ..change(name, &found, value) }])?;
            write(name, value)?;
            Ok(true)
        }
    }
}

/// Makes a number of seconds `longer` than it was before netplug came, remembering in `state` what it was. `false`: the
/// kernel has none of that name.
pub fn stretch(state: &mut State, name: &str, longer: u64) -> Result<bool, Error> {
    let Some(found) = get(name)? else { return Ok(false) };
    let was = state.before(name, &found).to_owned();
    let Ok(seconds) = was.parse::<u64>() else { return Ok(false) };
    let wanted = (seconds + longer).to_string();
    if found != wanted {
        state.remember([change(name, &was, &wanted)])?;
        write(name, &wanted)?;
    }
    Ok(true)
}

/// Has the node route back what comes in by `bridge`, be it adopted or pods', or forward what comes from a `routed` pod's
/// interface, and not tell the senders of shorter ways.
pub fn route_back(
    state: &mut State,
    bridge: Option<&Link>,
    routed: Option<&Link>,
    ipv6: bool,
) -> Result<(), Error> {
    let name = bridge.map(|bridge| bridge.name.as_str());
    if let Some(name) = name {
        ensure(state, &format!("net/ipv4/conf/{name}/send_redirects"), "0")?;
    }
    // The kernel sends redirects if either of `all` and the device says so.
    ensure(state, "net/ipv4/conf/all/send_redirects", "0")?;
    forward_ipv4(state)?;
    if let Some(device) = bridge.or(routed) {
        forward_from(state, device)?;
    }
    if ipv6 { forward_ipv6(state, name) } else { Ok(()) }
}

/// Has the node forward IPv4. The kernel then has every device forward too, and has none heed redirects
/// (`inet_forward_change`, net/ipv4/devinet.c).
fn forward_ipv4(state: &mut State) -> Result<(), Error> {
    forward(state, "net/ipv4/ip_forward", "net/ipv4/conf", |device| match device {
        "all" => ("accept_redirects", "0"),
        _ => ("forwarding", "1"),
    })
}

/// Has the node forward IPv6. The kernel then has every device forward too (`addrconf_forward_change`,
/// net/ipv6/addrconf.c), and a device that forwards heeds router advertisements only if its `accept_ra` is 2
/// (Documentation/networking/ip-sysctl.rst): those that did heed them go on, but for `bridge`, behind which are pods.
fn forward_ipv6(state: &mut State, bridge: Option<&str>) -> Result<(), Error> {
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    if get(FORWARDING)?.as_deref() == Some("0") {
        for name in devices("net/ipv6/conf")?.iter().filter(|name| Some(name.as_str()) != bridge) {
            let accept = format!("net/ipv6/conf/{name}/accept_ra");
            if !matches!(name.as_str(), "all" | "default" | "lo")
                && get(&accept)?.as_deref() == Some("1")
            {
                ensure(state, &accept, "2")?;
            }
        }
    }
    forward(state, FORWARDING, "net/ipv6/conf", |_| ("forwarding", "1"))
}

/// Makes the sysctl `switch` 1. What the kernel then sets for each device below `folder`, and sets back with the switch,
/// is remembered where it was so before.
fn forward(
    state: &mut State,
    switch: &str,
    folder: &str,
    sets: impl Fn(&str) -> (&'static str, &'static str),
) -> Result<(), Error> {
    if get(switch)?.as_deref() != Some("0") {
        let devices = format!("{folder}/");
        return state.want(|known| {
            // What went with it: devices that forwarded, and those that heed routers all the same.
            let is_its = known.was == known.became || known.name.ends_with("/accept_ra");
            known.name == switch || (known.name.starts_with(&devices) && is_its)
        });
    }
    let mut remembered = Vec::new();
    for device in devices(folder)? {
        let (name, value) = sets(&device);
        let name = format!("{folder}/{device}/{name}");
        if get(&name)?.as_deref() == Some(value) {
            remembered.push(change(&name, value, value));
        }
    }
    // Last, so that it is the first to be put back.
    remembered.push(change(switch, "0", "1"));
    state.remember(remembered)?;
    write(switch, "1")
}

/// The devices that have sysctls below `folder`, `all` and `default` among them.
fn devices(folder: &str) -> Result<Vec<String>, Error> {
    let fail =
        |source| Error::System { verb: "list", object: path(folder).display().to_string(), source };
    let entries = fs::read_dir(path(folder)).map_err(fail)?;
    entries
        .map(|entry| Ok(entry.map_err(fail)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn change(name: &str, was: &str, became: &str) -> Change {
    Change {
        name: name.into(),
        was: was.into(),
        became: became.into(),
        before: None,
        goes: false,
        adopted: BTreeSet::new(),
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
