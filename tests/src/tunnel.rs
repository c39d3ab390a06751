//! A cable without Ethernet: a TUN device at either end (Documentation/networking/tuntap.rst), and threads of this process
//! between the two, as the daemon of a VPN would be.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::namespace::Namespace;

/// Room for whatever a device without offloads sends.
const LONGEST: usize = 65_536;
/// How soon the threads find that it is over.
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A cable without Ethernet, which is gone with this value.
#[derive(Debug)]
pub struct Tunnel {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Tunnel {
    /// Joins two places by a device called `name` at either end. They have no addresses yet, and are down.
    ///
    /// # Panics
    /// When the kernel has no such devices.
    #[track_caller]
    #[must_use]
    pub fn between(places: [&Namespace; 2], name: &str) -> Self {
        let ends = places.map(|place| {
            let end = place.enter(|| device(name));
            Arc::new(end.unwrap_or_else(|error| panic!("cannot make {name}: {error}")))
        });
        let is_over = Arc::new(AtomicBool::new(false));
        let carry = |from: &Arc<File>, to: &Arc<File>| {
            let (from, to, is_over) = (from.clone(), to.clone(), is_over.clone());
            std::thread::spawn(move || carry(&from, &to, &is_over))
        };
        let threads = vec![carry(&ends[0], &ends[1]), carry(&ends[1], &ends[0])];
        Self { is_over, threads }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn carry(mut from: &File, mut to: &File, is_over: &AtomicBool) {
    let mut packet = vec![0; LONGEST];
    while !is_over.load(Ordering::SeqCst) {
        let mut ready = [PollFd::new(&from, PollFlags::IN)];
        if !poll(&mut ready, Some(&GLANCE)).is_ok_and(|count| count > 0) {
            continue;
        }
        // A device that is down loses what comes, as a cable would.
        if let Ok(length) = from.read(&mut packet) {
            let _ = to.write(&packet[..length]);
        }
    }
}

fn device(name: &str) -> io::Result<File> {
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: zeroes are a valid request: no name, no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, octet) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = octet.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the request is one of this ioctl's.
    let failed =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if failed == 0 { Ok(device) } else { Err(io::Error::last_os_error()) }
}
