//! Leases on disk, as host-local has them (containernetworking/plugins, plugins/ipam/host-local/backend/disk): a folder
//! for each network, in it a file for each address with `<container>\r\n<interface>`, `last_reserved_ip.<set>` and a lock
//! file that both take by flock(2). Unlike host-local's, each file is on disk before its address is given out, and never is
//! there without its content: written under a name that is no address, it is then linked.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;

use super::{Error, Lease, Range, RangeSet};

/// Where host-local keeps its networks.
pub const DATA_DIR: &str = "/var/lib/cni/networks";

/// What is written before it is a lease; left by who was killed, and then nobody's.
const UNFINISHED: &str = "lease.new";

/// The leases of one network.
pub struct Store {
    folder: PathBuf,
}

/// Held while leases are made or given back.
struct Locked<'a> {
    folder: &'a Path,
    _lock: File,
}

impl Store {
    /// The leases of `network` below `data_dir`.
    #[must_use]
    pub fn new(data_dir: &Path, network: &str) -> Self {
        Self { folder: data_dir.join(network) }
    }

    fn lock(&self) -> Result<Locked<'_>, Error> {
        let fail = |verb, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::File { verb, path, source }
        };
        fs::create_dir_all(&self.folder).map_err(fail("make", &self.folder))?;
        let path = self.folder.join("lock");
        let file =
            File::options().create(true).append(true).open(&path).map_err(fail("open", &path))?;
        file.lock().map_err(fail("lock", &path))?;
        Ok(Locked { folder: &self.folder, _lock: file })
    }

    /// Leases one address of each set, a wanted one where there is; all of them or none.
    pub fn lease(
        &self,
        sets: &[RangeSet],
        wanted: &[IpAddr],
        container: &str,
        ifname: &str,
    ) -> Result<Vec<Lease>, Error> {
        for address in wanted {
            if !sets.iter().any(|set| set.offering(*address).is_some()) {
                let ranges: Vec<_> = sets.iter().map(ToString::to_string).collect();
                return Err(Error::NotOffered { address: *address, ranges: ranges.join(", ") });
            }
        }
        for set in sets {
            let mut of_set = wanted.iter().filter(|address| set.offering(**address).is_some());
            if let Some(address) = of_set.nth(1) {
                return Err(Error::TooMany { address: *address, ranges: set.to_string() });
            }
        }
        let locked = self.lock()?;
        if let Some(address) = locked.held_by(container, ifname)?.first() {
            return Err(Error::HasOne {
                container: container.into(),
                ifname: ifname.into(),
                address: *address,
            });
        }
        let mut leases: Vec<Lease> = Vec::new();
        for (number, set) in sets.iter().enumerate() {
            match locked.lease(set, wanted, number, container, ifname) {
                Ok(lease) => leases.push(lease),
                Err(error) => {
                    for lease in leases {
                        // The first error is the one that tells; DEL finds what could not be removed.
                        let _ = locked.remove(lease.address.ip());
                    }
                    return Err(error);
                }
            }
        }
        Ok(leases)
    }

    /// Gives back whatever a container has for an interface; content if that is nothing, also where the folder cannot
    /// be written.
    pub fn release(&self, container: &str, ifname: &str) -> Result<(), Error> {
        if self.held_by(container, ifname)?.is_empty() {
            if self.folder.join(UNFINISHED).exists()
                && let Ok(locked) = self.lock()
            {
                // Nobody's; where it cannot be removed, who leases next does.
                let _ = locked.remove_file(UNFINISHED);
            }
            return Ok(());
        }
        let locked = self.lock()?;
        for address in locked.held_by(container, ifname)? {
            locked.remove(address)?;
        }
        locked.remove_file(UNFINISHED)
    }

    /// What a container has for an interface.
    pub fn held_by(&self, container: &str, ifname: &str) -> Result<Vec<IpAddr>, Error> {
        held_by(&self.folder, container, ifname)
    }
}

impl Locked<'_> {
    fn lease(
        &self,
        set: &RangeSet,
        wanted: &[IpAddr],
        number: usize,
        container: &str,
        ifname: &str,
    ) -> Result<Lease, Error> {
        let last_file = self.folder.join(format!("last_reserved_ip.{number}"));
        let wanted = wanted.iter().find_map(|address| Some((*address, set.offering(*address)?)));
        let (address, range) = match wanted {
            Some((address, range)) if self.create(address, container, ifname)? => (address, range),
            Some((address, _)) => return Err(Error::Taken { address }),
            None => self.next(set, &last_file, container, ifname)?,
        };
        fs::write(&last_file, address.to_string())
            .map_err(|source| Error::File { verb: "write", path: last_file, source })
            .and_then(|()| self.sync())
            .inspect_err(|_| drop(self.remove(address)))?;
        let address = IpNetwork::new(address, range.subnet.prefix()).map_err(|_| Error::Range {
            range: range.to_string(),
            wrong: "has an impossible prefix",
        })?;
        Ok(Lease { address, gateway: range.gateway })
    }

    /// Takes the first free address behind the one that `last_file` names.
    fn next<'set>(
        &self,
        set: &'set RangeSet,
        last_file: &Path,
        container: &str,
        ifname: &str,
    ) -> Result<(IpAddr, &'set Range), Error> {
        // Missing or unreadable, the search begins at the first address.
        let last = fs::read_to_string(last_file).ok().and_then(|text| text.trim().parse().ok());
        let mut used = 0;
        for (address, range) in set.candidates(last) {
            if self.create(address, container, ifname)? {
                return Ok((address, range));
            }
            used += 1;
        }
        Err(Error::Exhausted { ranges: set.to_string(), used })
    }

    /// `false`: somebody has it.
    fn create(&self, address: IpAddr, container: &str, ifname: &str) -> Result<bool, Error> {
        let path = self.folder.join(address.to_string());
        let fail = |verb| {
            let path = path.clone();
            move |source| Error::File { verb, path, source }
        };
        if let Ok(lease) = fs::metadata(&path) {
            if !lease.is_file() || lease.len() > 0 {
                return Ok(false);
            }
            // Who writes a lease holds the lock: an empty one is of a host-local that was killed, and nobody's.
            fs::remove_file(&path).map_err(fail("remove"))?;
        }
        let unfinished = self.folder.join(UNFINISHED);
        // Another's may be a lease by now, which it must not be written into.
        self.remove_file(UNFINISHED)?;
        let written = File::options().write(true).create_new(true).mode(0o600).open(&unfinished);
        let written = written.and_then(|mut file| {
            write!(file, "{container}\r\n{ifname}").and_then(|()| file.sync_all())
        });
        let linked = match written.map_err(fail("write")) {
            Ok(()) => match fs::hard_link(&unfinished, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                linked => linked.map(|()| true).map_err(fail("make")),
            },
            Err(error) => Err(error),
        };
        let removed = self.remove_file(UNFINISHED);
        // The first error is the one that tells.
        linked.and_then(|is_made| removed.map(|()| is_made))
    }

    fn sync(&self) -> Result<(), Error> {
        File::open(self.folder).and_then(|folder| folder.sync_all()).map_err(|source| Error::File {
            verb: "sync",
            path: self.folder.into(),
            source,
        })
    }

    fn held_by(&self, container: &str, ifname: &str) -> Result<Vec<IpAddr>, Error> {
        held_by(self.folder, container, ifname)
    }

    fn remove(&self, address: IpAddr) -> Result<(), Error> {
        self.remove_file(&address.to_string())
    }

    /// Content if there is none.
    fn remove_file(&self, name: &str) -> Result<(), Error> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { verb: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}

fn held_by(folder: &Path, container: &str, ifname: &str) -> Result<Vec<IpAddr>, Error> {
    let mut held = Vec::new();
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let fail = |source| Error::File { verb: "read", path: folder.into(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if is_missing(&error) => return Ok(held),
        entries => entries.map_err(fail)?,
    };
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let content = match fs::read(entry.path()) {
            // Given back just now, or no lease, of whoever made it.
            Err(error) if is_missing(&error) || error.kind() == io::ErrorKind::IsADirectory => {
                continue;
            }
            content => content.map_err(|source| Error::File {
                verb: "read",
                path: entry.path(),
                source,
            })?,
        };
        // Whatever is in it.
        let mut lines =
            content.trim_ascii_end().split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii);
        let is_containers = lines.next() == Some(container.as_bytes());
        // host-local before 0.8 wrote no interface.
        if is_containers && lines.next().is_none_or(|name| name == ifname.as_bytes()) {
            held.push(address);
        }
    }
    Ok(held)
}

#[cfg(test)]
mod compatibility;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets(subnet: &str) -> Vec<RangeSet> {
        vec![RangeSet {
            ranges: vec![Range::new(subnet.parse().unwrap(), None, None, None).unwrap()],
        }]
    }

    #[test]
    fn an_address_is_leased_once_given_back_and_not_given_out_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        let sets = sets("10.1.2.0/29");
        let first = store.lease(&sets, &[], "a", "eth0").unwrap();
        assert_eq!(first[0].address.to_string(), "10.1.2.2/29");
        assert_eq!(first[0].gateway.to_string(), "10.1.2.1");
        store.release("a", "eth0").unwrap();
        assert_eq!(
            store.lease(&sets, &[], "b", "eth0").unwrap()[0].address.ip().to_string(),
            "10.1.2.3"
        );
        assert_eq!(fs::read(folder.path().join("net/10.1.2.3")).unwrap(), b"b\r\neth0");
        assert_eq!(fs::read(folder.path().join("net/last_reserved_ip.0")).unwrap(), b"10.1.2.3");
    }

    #[test]
    fn a_lease_that_nobody_can_read_is_somebodys_and_keeps_nobody_from_his() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        fs::create_dir_all(folder.path().join("net/10.1.2.3")).unwrap();
        fs::write(folder.path().join("net/10.1.2.2"), b"\xff\xfe\r\neth0").unwrap();
        let lease = store.lease(&sets("10.1.2.0/29"), &[], "a", "eth0").unwrap();
        assert_eq!(lease[0].address.to_string(), "10.1.2.4/29");
        assert_eq!(store.held_by("a", "eth0").unwrap(), [lease[0].address.ip()]);
        store.release("a", "eth0").unwrap();
        assert!(store.held_by("a", "eth0").unwrap().is_empty());
    }

    #[test]
    fn what_a_killed_lease_left_goes_also_with_who_has_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        fs::create_dir(folder.path().join("net")).unwrap();
        let left = folder.path().join("net").join(UNFINISHED);
        fs::write(&left, "a\r\neth0").unwrap();
        store.release("a", "eth0").unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn who_holds_the_lock_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        let locked = store.lock().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let lease = store.lease(&sets("10.1.2.0/29"), &[], "a", "eth0");
                tell.send(()).unwrap();
                lease
            });
            // Nothing can come as long as the lock is held, however long that is.
            told.recv_timeout(std::time::Duration::from_millis(50)).unwrap_err();
            drop(locked);
            told.recv().unwrap();
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn the_same_container_is_not_given_a_second_address() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        store.lease(&sets("10.1.2.0/29"), &[], "a", "eth0").unwrap();
        assert!(matches!(
            store.lease(&sets("10.1.2.0/29"), &[], "a", "eth0"),
            Err(Error::HasOne { .. })
        ));
        assert!(store.lease(&sets("10.1.2.0/29"), &[], "a", "eth1").is_ok());
    }

    #[test]
    fn an_exhausted_range_says_how_many_are_in_use_and_leaks_nothing_of_the_other_family() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        let both = [sets("fd00::/64").remove(0), sets("10.1.2.0/30").remove(0)];
        store.lease(&both, &[], "a", "eth0").unwrap();
        let error = store.lease(&both, &[], "b", "eth0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot lease an address from 10.1.2.0/30 (10.1.2.1-10.1.2.2): all 1 are in use"
        );
        assert!(store.held_by("b", "eth0").unwrap().is_empty());
    }

    #[test]
    fn many_at_once_never_get_the_same_address() {
        let folder = tempfile::tempdir().unwrap();
        let leases: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let store = Store::new(folder.path(), "net");
                    scope.spawn(move || {
                        (0..20)
                            .map(|n| {
                                store
                                    .lease(
                                        &sets("10.1.2.0/24"),
                                        &[],
                                        &format!("{thread}-{n}"),
                                        "eth0",
                                    )
                                    .unwrap()[0]
                            })
                            .map(|lease| lease.address.ip())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let unique: std::collections::HashSet<_> = leases.iter().collect();
        assert_eq!(unique.len(), 160);
    }

    #[test]
    fn a_wanted_address_is_leased_if_it_is_free_and_offered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        let both = [sets("fd00::/64").remove(0), sets("10.1.2.0/24").remove(0)];
        let wanted = ["10.1.2.77".parse().unwrap()];
        let leases = store.lease(&both, &wanted, "a", "eth0").unwrap();
        let addresses: Vec<_> = leases.iter().map(|lease| lease.address.to_string()).collect();
        assert_eq!(addresses, ["fd00::2/64", "10.1.2.77/24"]);
        assert!(matches!(store.lease(&both, &wanted, "b", "eth0"), Err(Error::Taken { .. })));
        assert!(store.held_by("b", "eth0").unwrap().is_empty());
        for outside in ["10.1.2.1", "10.1.3.7"] {
            let refused = store.lease(&both, &[outside.parse().unwrap()], "b", "eth0");
            assert!(matches!(refused, Err(Error::NotOffered { .. })), "{outside}");
        }
    }

    #[test]
    fn a_lease_that_was_never_written_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        store.lease(&sets("10.1.2.0/30"), &[], "a", "eth0").unwrap();
        store.release("a", "eth0").unwrap();
        let file = folder.path().join("net/10.1.2.2");
        File::create(&file).unwrap();
        store.lease(&sets("10.1.2.0/30"), &[], "b", "eth0").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"b\r\neth0");
    }

    /// Whoever is killed leaves a lease that DEL finds, or none.
    #[test]
    fn a_lease_is_never_there_without_its_content() {
        use rustix::fs::inotify;

        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        // The first makes the folder.
        store.lease(&sets("10.1.2.0/24"), &[], "a", "eth0").unwrap();
        let events = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        let watched = inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY;
        inotify::add_watch(&events, folder.path().join("net"), watched).unwrap();
        store.lease(&sets("10.1.2.0/24"), &[], "b", "eth0").unwrap();
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        let mut of_lease = Vec::new();
        while let Ok(event) = reader.next() {
            if event.file_name() == Some(c"10.1.2.3") {
                of_lease.push(event.events());
            }
        }
        assert_eq!(of_lease, [inotify::ReadFlags::CREATE]);
        let mut left: Vec<_> = fs::read_dir(folder.path().join("net"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["10.1.2.2", "10.1.2.3", "last_reserved_ip.0", "lock"]);
    }

    #[test]
    fn what_was_left_unfinished_is_in_nobodys_way_and_no_lease_is_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        store.lease(&sets("10.1.2.0/24"), &[], "a", "eth0").unwrap();
        // Killed behind the link: both names are one file's.
        let [lease, unfinished] =
            ["10.1.2.2", UNFINISHED].map(|name| folder.path().join("net").join(name));
        fs::hard_link(&lease, &unfinished).unwrap();
        store.lease(&sets("10.1.2.0/24"), &[], "b", "eth0").unwrap();
        assert_eq!(fs::read(&lease).unwrap(), b"a\r\neth0");
        fs::write(&unfinished, "").unwrap();
        store.release("a", "eth0").unwrap();
        assert!(!lease.exists() && !unfinished.exists());
    }

    #[test]
    fn two_addresses_of_one_set_are_one_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "net");
        let wanted = ["10.1.2.7", "10.1.2.8"].map(|text| text.parse().unwrap());
        let error = store.lease(&sets("10.1.2.0/24"), &wanted, "a", "eth0").unwrap_err();
        assert!(matches!(error, Error::TooMany { address, .. } if address == wanted[1]));
        assert!(store.held_by("a", "eth0").unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn no_address_is_leased_twice_and_none_is_lost(steps in prop::collection::vec((0u8..12, any::<bool>()), 1..60)) {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::new(folder.path(), "net");
            let sets = sets("10.1.2.0/29");
            let mut held = std::collections::BTreeMap::new();
            for (container, is_add) in steps {
                let name = container.to_string();
                if !is_add {
                    store.release(&name, "eth0").unwrap();
                    held.remove(&container);
                    continue;
                }
                match store.lease(&sets, &[], &name, "eth0") {
                    Ok(leases) => {
                        let address = leases[0].address.ip();
                        prop_assert!(!held.values().any(|other| *other == address));
                        prop_assert_eq!(held.insert(container, address), None);
                    }
                    Err(Error::Exhausted { used, .. }) => {
                        prop_assert_eq!((used, held.len()), (5, 5));
                    }
                    Err(Error::HasOne { address, .. }) => {
                        prop_assert_eq!(held.get(&container), Some(&address));
                    }
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            for (container, address) in held {
                prop_assert_eq!(store.held_by(&container.to_string(), "eth0").unwrap(), [address]);
            }
        }
    }
}
