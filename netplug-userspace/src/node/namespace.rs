//! Work inside a pod's network namespace, on a thread of its own: a thread that has entered a namespace never comes
//! back, so nothing else can run there by mistake.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Error, Netlink};

/// An open network namespace.
pub struct Namespace {
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// Opens the namespace that a runtime names.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match File::open(path) {
            Ok(file) => Ok(Self { path: path.into(), file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NamespaceGone { path: path.into() })
            }
            Err(source) => {
                Err(Error::System { verb: "open", object: path.display().to_string(), source })
            }
        }
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
