//! A place to run things in: a network namespace, with the mount namespace of the node that it belongs to.
//!
//! Namespaces are held by file descriptors of this process and by nothing else, so that none outlives it,
//! however it ends. A thread that enters one never leaves it again: work is given to a thread of its own, and
//! sockets made there keep their namespace and may be used from anywhere.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Where the names of a node's network namespaces are mounted, inside the node.
pub const NETNS_FOLDER: &str = "/run/netns";

/// A network namespace and the mount namespace that belongs to it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    net: OwnedFd,
    mount: OwnedFd,
}

impl Namespace {
    /// A machine of its own: new network and mount namespaces, with a bpffs, `/run` and `/var/lib/cni` that
    /// nobody else sees.
    pub fn machine(name: &str) -> Self {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::FS);
                    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                    mount_change("/", private).expect("root may make its mounts private");
                    hide("bpf", "/sys/fs/bpf");
                    hide("tmpfs", "/run");
                    hide_state();
                    std::fs::create_dir_all(NETNS_FOLDER).expect("the new /run is writable");
                    Self::here(name)
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The namespaces of the calling thread.
    fn here(name: &str) -> Self {
        let open = |kind: &str| -> OwnedFd {
            File::open(format!("/proc/thread-self/ns/{kind}")).expect("procfs is mounted").into()
        };
        Self { name: name.into(), net: open("net"), mount: open("mnt") }
    }

    /// Another network namespace on the same machine, named at `path` there, with `lo` up.
    pub fn sibling(&self, name: &str, path: &Path) -> Self {
        self.enter(|| {
            unshare(UnshareFlags::NEWNET);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).expect("the machine's /run is writable");
            }
            File::create(path).expect("the machine's /run is writable");
            mount_bind("/proc/thread-self/ns/net", path).expect("root may mount");
            let sibling = Self::here(name);
            sibling.run("ip link set lo up");
            sibling
        })
    }

    /// A pod's namespace, named as container runtimes name theirs.
    pub fn pod(&self, name: &str) -> Self {
        self.sibling(name, &Self::pod_path(name))
    }

    /// Where [`Namespace::pod`] puts the name: what `CNI_NETNS` is set to.
    #[must_use]
    pub fn pod_path(name: &str) -> PathBuf {
        Path::new(NETNS_FOLDER).join(name)
    }

    /// What it was called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` on a thread inside; a panic there is one here.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.join_for_good();
                    work()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Brings the calling thread inside; there is no way back.
    pub fn join_for_good(&self) {
        // setns(2) refuses a mount namespace to a thread that shares its working directory with others.
        unshare(UnshareFlags::FS);
        let join = |fd: &OwnedFd, kind| {
            move_into_link_name_space(fd.as_fd(), Some(kind))
                .expect("root may enter its own namespaces");
        };
        join(&self.mount, LinkNameSpaceType::Mount);
        join(&self.net, LinkNameSpaceType::Network);
    }

    /// Runs a command line (words parted by blanks) inside and returns what it printed.
    ///
    /// # Panics
    /// When it fails: with what it said.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        self.feed(line, "")
    }

    /// [`Namespace::run`] with `input` on its standard input.
    #[track_caller]
    pub fn feed(&self, line: &str, input: &str) -> String {
        let output = self.try_feed(line, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: `{line}` failed: {said}\n{input}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// [`Namespace::feed`] for commands that may fail.
    #[track_caller]
    pub fn try_feed(&self, line: &str, input: &str) -> Output {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a command line is not empty"));
        command.args(words);
        self.output(command, input.as_bytes())
    }

    /// Runs a prepared command inside to its end.
    #[track_caller]
    pub fn output(&self, mut command: Command, input: &[u8]) -> Output {
        let program: PathBuf = <OsStr as AsRef<Path>>::as_ref(command.get_program()).into();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let result = self.enter(|| {
            let mut child = command.spawn()?;
            // A child that does not read its input closes it: not an error of ours.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
            child.wait_with_output()
        });
        result.unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()))
    }

    /// Writes a sysctl, named with slashes.
    #[track_caller]
    pub fn set_sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys").join(name);
        let result = self.enter(|| std::fs::write(&path, value));
        result
            .unwrap_or_else(|error| panic!("{}: cannot set {name} to {value}: {error}", self.name));
    }

    /// Reads a sysctl; `None` where there is none.
    #[must_use]
    pub fn sysctl(&self, name: &str) -> Option<String> {
        let path = Path::new("/proc/sys").join(name);
        self.enter(|| std::fs::read_to_string(path)).ok().map(|text| text.trim_end().to_owned())
    }
}

fn unshare(flags: UnshareFlags) {
    // SAFETY: the flags given in this module never part the file descriptors, which is what is unsafe about it.
    let result = unsafe { rustix::thread::unshare_unsafe(flags) };
    result.expect("the tests run as root, in a kernel with namespaces");
}

fn hide(kind: &str, path: &str) {
    let result = mount(kind, path, kind, MountFlags::empty(), None);
    result.unwrap_or_else(|error| panic!("cannot mount {kind} on {path}: {error}"));
}

/// Covers `/var/lib/cni`; where the machine has none, all of `/var/lib`, so that none need be made on its disk.
fn hide_state() {
    if Path::new("/var/lib/cni").is_dir() {
        hide("tmpfs", "/var/lib/cni");
    } else {
        hide("tmpfs", "/var/lib");
        std::fs::create_dir("/var/lib/cni").expect("the new /var/lib is writable");
    }
}
