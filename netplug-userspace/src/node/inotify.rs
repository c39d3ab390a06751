//! Being told of files (inotify(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
pub use rustix::fs::inotify::WatchFlags;
use tokio::io::unix::AsyncFd;

/// Who is told.
pub struct Inotify(AsyncFd<OwnedFd>);

impl Inotify {
    /// Nothing yet.
    pub fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let inotify = inotify::init(flags)?;
        // SAFETY: what is registered owns the descriptor, and is the only one that closes it.
        Ok(Self(unsafe { AsyncFd::register(inotify) }?))
    }

    /// Has `events` of a file or folder told, if it is there; what is watched already stays so.
    pub fn watch(&self, path: &Path, events: WatchFlags) {
        let _ = inotify::add_watch(&self.0, path, events);
    }

    /// Waits until there was something.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut has_any = false;
            let mut reader = inotify::Reader::new(&self.0, &mut buffer);
            loop {
                match reader.next() {
                    Ok(_) => has_any = true,
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if has_any {
                return Ok(());
            }
        }
    }
}
