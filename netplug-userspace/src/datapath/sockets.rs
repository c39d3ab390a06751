//! The socket hooks: attached to the root of the control groups, for as long as netplug is loaded.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};

use super::{Error, load, maps, pin};

/// The hooks, by the names of their programs.
const HOOKS: &[&str] = &[
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];

/// Where the last hook's link is pinned, with the digest of the object that it is of: it is there when all are.
fn mark() -> PathBuf {
    pin::path(&format!("hooks-{}", load::DIGEST))
}

/// Attaches the hooks of this build, where they are not yet, and takes those of another off.
pub(super) fn attach() -> Result<(), Error> {
    if mark().exists() {
        return Ok(());
    }
    let root = control_groups()?;
    let root_file =
        fs::File::open(&root).map_err(|source| Error::File { verb: "open", path: root, source })?;
    let paths: Vec<_> = maps::NAMES.iter().map(|name| (*name, pin::path(name))).collect();
    let mut loader = EbpfLoader::new();
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let mut object = loader.load(load::object()).map_err(load::refused)?;
    let fail =
        |verb, program| move |source| Error::Program { verb, program, source: Box::new(source) };
    for hook in HOOKS {
        let program: &mut CgroupSockAddr = object
            .program_mut(hook)
            .ok_or(aya::programs::ProgramError::NotLoaded)
            .and_then(TryInto::try_into)
            .map_err(fail("find", hook))?;
        program.load().map_err(fail("load", hook))?;
        let id =
            program.attach(&root_file, CgroupAttachMode::Single).map_err(fail("attach", hook))?;
        let link: CgroupSockAddrLink = program.take_link(id).map_err(fail("keep", hook))?;
        let link: FdLink = link.try_into().map_err(|source| Error::Attach {
            verb: "keep",
            program: hook,
            interface: "control groups".into(),
            source: Box::new(source),
        })?;
        // A hook of another build goes when its pin does, after this one is there: for a moment both run, and the second finds
        // nothing to do.
        let (fresh, path) = (pin::path(&format!("new_{hook}")), pin::path(&format!("hook-{hook}")));
        pin::remove(&fresh)?;
        link.pin(&fresh).map_err(|source| Error::Pin { path: fresh.clone(), source })?;
        fs::rename(&fresh, &path).map_err(|source| Error::File {
            verb: "replace",
            path,
            source,
        })?;
    }
    forget_marks()?;
    let program: &mut CgroupSockAddr = object
        .program_mut(HOOKS[0])
        .ok_or(aya::programs::ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(fail("find", HOOKS[0]))?;
    let path = mark();
    program.pin(&path).map_err(|source| Error::Pin { path, source })
}

/// Whether hooks are attached, of whatever build.
pub(super) fn are_attached() -> bool {
    HOOKS.iter().any(|hook| pin::path(&format!("hook-{hook}")).exists())
}

fn forget_marks() -> Result<(), Error> {
    let folder = pin::directory();
    let fail = |source| Error::File { verb: "read", path: folder.clone(), source };
    for entry in fs::read_dir(&folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_string_lossy().starts_with("hooks-") {
            pin::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The root of the control groups of version 2 (proc_pid_mountinfo(5)): what is mounted there, not a part of it.
fn control_groups() -> Result<PathBuf, Error> {
    let path = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(path).map_err(|source| Error::File {
        verb: "read",
        path: path.into(),
        source,
    })?;
    let of_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(place))
    };
    mounts.lines().find_map(of_line).ok_or(Error::NoControlGroups)
}

/// The cookie of this network namespace, as programs see it (`SO_NETNS_COOKIE`, Linux 5.14).
pub(super) fn namespace_cookie() -> Result<u64, Error> {
    let fail = |source| Error::File {
        verb: "read the cookie of",
        path: Path::new("/proc/self/ns/net").into(),
        source,
    };
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .map_err(|error| fail(error.into()))?;
    let mut cookie = 0u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes no more than `size` bytes to the cookie.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if failed == 0 { Ok(cookie) } else { Err(fail(std::io::Error::last_os_error())) }
}
