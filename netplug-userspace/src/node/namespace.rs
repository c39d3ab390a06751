//! Work inside a pod's network namespace, on a thread of its own: a thread that has entered a namespace never comes
//! back, so nothing else can run there by mistake.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Error, Netlink};

/// `NSFS_MAGIC` (include/uapi/linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// An open network namespace.
pub struct Namespace {
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// Opens the namespace that a runtime names.
    pub fn open(path: &Path) -> Result<Self, Error> {
        use io::ErrorKind::{NotADirectory, NotFound};

        let fail =
            |verb| move |source| Error::System { verb, object: path.display().to_string(), source };
        // A pipe that nobody writes to would be waited for.
        match File::options().read(true).custom_flags(NONBLOCK).open(path) {
            Ok(file) => {
                let system = rustix::fs::fstatfs(&file).map_err(io::Error::from);
                if system.map_err(fail("look at"))?.f_type != NSFS_MAGIC {
                    return Err(Error::NoNamespace { path: path.into() });
                }
                Ok(Self { path: path.into(), file })
            }
            Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {
                Err(Error::NamespaceGone { path: path.into() })
            }
            Err(source) => Err(fail("open")(source)),
        }
    }

    /// The same, for who takes a pod down; `None` where it is gone. A runtime unmounts it before it removes the file, which
    /// then is none.
    pub fn open_what_is_left(path: &Path) -> Result<Option<Self>, Error> {
        match Self::open(path) {
            Err(Error::NamespaceGone { .. } | Error::NoNamespace { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether it is the one that this process is in, by whatever path.
    pub fn is_own(&self) -> Result<bool, Error> {
        const OWN: &str = "/proc/self/ns/net";
        let fail = |object: String| {
            move |source: io::Error| Error::System { verb: "look at", object, source }
        };
        let it = self.file.metadata().map_err(fail(self.path.display().to_string()))?;
        let own = std::fs::metadata(OWN).map_err(fail(OWN.into()))?;
        Ok((it.dev(), it.ino()) == (own.dev(), own.ino()))
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor, for netlink.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `work` inside, with a netlink socket of the namespace's. Files below `/proc/sys/net` are its own there.
    pub fn enter<T: Send>(
        &self,
        work: impl FnOnce(&Netlink) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let result = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                        .map_err(|error| Error::System {
                            verb: "enter",
                            object: self.path.display().to_string(),
                            source: error.into(),
                        })?;
                    work(&Netlink::open()?)
                })
                .join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
