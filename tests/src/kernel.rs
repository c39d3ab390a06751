//! The kernel that tests run on. A test is skipped only where it is older than what the test is about.

/// Whether the kernel is of version `major`.`minor` or later.
#[must_use]
pub fn is_at_least(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Whether the kernel has TCX; where not, says that what follows is skipped.
#[must_use]
pub fn has_tcx() -> bool {
    let has_tcx = is_at_least(6, 6);
    if !has_tcx {
        eprintln!("skipped: TCX came with Linux 6.6");
    }
    has_tcx
}
