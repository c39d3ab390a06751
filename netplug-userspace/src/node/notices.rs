//! What the kernel tells of its own accord: that links, addresses, default routes or routes with an MTU are others now, that a folder has
//! another file, that the process is to end.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteAttribute;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::inotify::{Inotify, WatchFlags};
use super::{Error, state};

/// Whose changes matter to uplinks, and to adopted bridges.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Something to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Links, addresses, default routes or routes with an MTU.
    Node,
    /// A file in the folder.
    File,
    /// The time has come.
    Time,
    /// SIGTERM or SIGINT.
    End,
}

/// Says that somebody watches, for as long as it lives.
pub struct Watching(#[expect(dead_code, reason = "held for its lock")] File);

impl Watching {
    const LOCK: &str = "watch.lock";

    /// Says so.
    pub fn begin() -> Result<Self, Error> {
        let file = state::lock_file(Self::LOCK).map_err(Self::fail)?;
        file.lock_shared().map_err(Self::fail)?;
        Ok(Self(file))
    }

    /// Whether anybody does.
    pub fn is_anybody() -> Result<bool, Error> {
        let file = state::lock_file(Self::LOCK).map_err(Self::fail)?;
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(Self::fail(source)),
        }
    }

    fn fail(source: io::Error) -> Error {
        Error::System { verb: "lock", object: Self::LOCK.into(), source }
    }
}

/// Who listens.
pub struct Notices {
    runtime: Runtime,
    changes: BoxStream<'static, ()>,
    folder: Option<Folder>,
    terminate: Signal,
    interrupt: Signal,
}

impl Notices {
    /// Listens in the calling thread's namespace from now on; with `file`, to its folder too. SIGTERM and SIGINT end the
    /// process no more, but are [`Notice::End`].
    pub fn listen(file: Option<&Path>) -> Result<Self, Error> {
        let fail = |object: &'static str| {
            move |source| Error::System { verb: "listen to", object: object.into(), source }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(fail("the kernel"))?;
        let context = runtime.enter();
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(fail("rtnetlink"))?;
        runtime.spawn(connection);
        let changes = messages
            .filter(|(message, _)| std::future::ready(matters(message)))
            .map(|_| ())
            .boxed();
        let folder = file.map(Folder::of).transpose().map_err(fail("inotify"))?;
        let terminate = signal(SignalKind::terminate()).map_err(fail("SIGTERM"))?;
        let interrupt = signal(SignalKind::interrupt()).map_err(fail("SIGINT"))?;
        drop(context);
        Ok(Self { runtime, changes, folder, terminate, interrupt })
    }

    /// Watches the file's folder, if it is (again) there.
    pub fn watch_again(&self) {
        if let Some(folder) = &self.folder {
            folder.watch();
        }
    }

    /// Waits for the next notice, no longer than `until`. What has come in the meantime is one.
    pub fn next(&mut self, until: Option<Instant>) -> Result<Notice, Error> {
        let Self { runtime, changes, folder, terminate, interrupt } = self;
        runtime.block_on(async {
            let time = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            let file = async {
                match folder {
                    Some(folder) => folder.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = terminate.recv() => Ok(Notice::End),
                _ = interrupt.recv() => Ok(Notice::End),
                () = time => Ok(Notice::Time),
                changed = file => changed.map(|()| Notice::File).map_err(|source| {
                    Error::System { verb: "read", object: "inotify".into(), source }
                }),
                change = changes.next() => match change {
                    Some(()) => {
                        while let Some(Some(())) = futures_util::FutureExt::now_or_never(changes.next()) {}
                        Ok(Notice::Node)
                    }
                    None => Err(Error::System {
                        verb: "listen to",
                        object: "rtnetlink".into(),
                        source: io::ErrorKind::ConnectionAborted.into(),
                    }),
                },
            }
        })
    }
}

/// Whether a message may be about an uplink, or a bridge's port. Pods' links and addresses are, too: who asks finds nothing new.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        // The socket's buffer was full: anything may have changed.
        NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => true,
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => {
            let has_metrics =
                |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Metrics(_));
            route.header.destination_prefix_length == 0 || route.attributes.iter().any(has_metrics)
        }
        NetlinkPayload::InnerMessage(_) => true,
        _ => false,
    }
}

/// The folder of a file. The file itself may be a link that is set anew, as in a ConfigMap's volume, or replaced.
struct Folder {
    path: PathBuf,
    inotify: Inotify,
}

impl Folder {
    fn of(file: &Path) -> io::Result<Self> {
        let path = match file.parent() {
            Some(parent) if parent != Path::new("") => parent.into(),
            _ => PathBuf::from("."),
        };
        let folder = Self { path, inotify: Inotify::new()? };
        folder.watch();
        Ok(folder)
    }

    /// A folder that is missing is looked for again when the file is read next; what is watched already stays so. A file that
    /// is removed or being written is nothing to be told of: it is about to be another.
    fn watch(&self) {
        self.inotify.watch(&self.path, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO);
    }

    async fn changed(&self) -> io::Result<()> {
        self.inotify.changed().await
    }
}
