//! The real host-local and this store over one folder: each honours what the other wrote.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Store;
use crate::ipam::{Range, RangeSet};

const HOST_LOCAL: &str = "/usr/lib/cni/host-local";
const SUBNETS: [&str; 2] = ["10.1.2.0/29", "fd00::/125"];

/// Whether Debian's `containernetworking-plugins` is installed; where nothing may be skipped, it must be.
fn is_there() -> bool {
    let is_there = Path::new(HOST_LOCAL).exists();
    let must = std::env::var("NETPLUG_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(is_there || !must, "{HOST_LOCAL} is missing; install containernetworking-plugins");
    if !is_there {
        eprintln!("skipped: there is no {HOST_LOCAL}");
    }
    is_there
}

fn sets() -> Vec<RangeSet> {
    let range = |subnet: &str| Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
    SUBNETS.iter().map(|subnet| RangeSet { ranges: vec![range(subnet)] }).collect()
}

/// What host-local answers; addresses of an ADD, or its complaint.
fn host_local(command: &str, container: &str, folder: &Path) -> Result<Vec<IpAddr>, String> {
    let config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge",
        "ipam": {"type": "host-local", "dataDir": folder,
                 "ranges": SUBNETS.map(|subnet| json!([{"subnet": subnet}]))},
    });
    let mut child = Command::new(HOST_LOCAL)
        .env_clear()
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_NETNS", "/proc/self/ns/net"), ("CNI_PATH", "/usr/lib/cni")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let ips = reply["ips"].as_array().cloned().unwrap_or_default();
    let ip = |ip: &Value| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned();
    Ok(ips.iter().map(|value| ip(value).parse().unwrap()).collect())
}

fn ours(store: &Store, container: &str) -> Vec<IpAddr> {
    let leases = store.lease(&sets(), &[], container, "eth0").unwrap();
    leases.iter().map(|lease| lease.address.ip()).collect()
}

fn addresses(last: u8) -> Vec<IpAddr> {
    vec![[10, 1, 2, last].into(), [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into()]
}

#[test]
fn both_go_round_the_same_ring_and_write_the_same_files() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), "net");
    assert_eq!(ours(&store, "a"), addresses(2));
    assert_eq!(host_local("ADD", "b", folder.path()).unwrap(), addresses(3));
    assert_eq!(ours(&store, "c"), addresses(4));
    for last in 2..=4 {
        for address in addresses(last) {
            let file = folder.path().join("net").join(address.to_string());
            let container = ["a", "b", "c"][usize::from(last - 2)];
            let content = std::fs::read_to_string(&file).unwrap();
            assert_eq!(content, format!("{container}\r\neth0"), "{}", file.display());
        }
    }
    host_local("ADD", "d", folder.path()).unwrap();
    assert_eq!(ours(&store, "e"), addresses(6));
    let full = host_local("ADD", "f", folder.path()).unwrap_err();
    assert!(full.contains("no IP addresses available"), "{full}");
}

#[test]
fn each_gives_back_what_the_other_leased() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path(), "net");
    let theirs = host_local("ADD", "theirs", folder.path()).unwrap();
    assert_eq!(store.held_by("theirs", "eth0").unwrap().len(), theirs.len());
    store.release("theirs", "eth0").unwrap();
    let own = ours(&store, "own");
    assert_eq!(own, addresses(3), "round robin goes on behind host-local's");
    host_local("DEL", "own", folder.path()).unwrap();
    assert!(store.held_by("own", "eth0").unwrap().is_empty());
}

#[test]
fn both_at_once_never_lease_the_same_address() {
    if !is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| {
            (0..2).flat_map(|n| host_local("ADD", &format!("t{n}"), folder.path())).count()
        });
        let store = Store::new(folder.path(), "net");
        let own = (0..3).map(|n| ours(&store, &format!("o{n}"))).count();
        assert_eq!((own, theirs.join().unwrap()), (3, 2));
    });
}
