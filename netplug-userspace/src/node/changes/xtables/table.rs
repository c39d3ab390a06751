//! Tables of legacy iptables by socket options (include/uapi/linux/netfilter_ipv4/ip_tables.h, and netfilter_ipv6's).

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use libc::{c_int, c_void, socklen_t};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; IPv6's are the same.
const INFO: c_int = 64;
const ENTRIES: c_int = 65;

/// The kernel makes a table of one of these names where somebody asks for it: only those that are there are asked for.
const NAMES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

/// What differs.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Family {
    names: &'static str,
    any: &'static str,
    level: c_int,
    /// Where in an entry its length is, and where its two counters are.
    length_at: usize,
    counters_at: usize,
}

static FAMILIES: [Family; 2] = [
    Family {
        names: "/proc/thread-self/net/ip_tables_names",
        any: "0.0.0.0:0",
        level: libc::IPPROTO_IP,
        length_at: 90,
        counters_at: 96,
    },
    Family {
        names: "/proc/thread-self/net/ip6_tables_names",
        any: "[::]:0",
        level: libc::IPPROTO_IPV6,
        length_at: 142,
        counters_at: 152,
    },
];

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Table {
    family: &'static Family,
    name: &'static str,
}

/// `struct ipt_getinfo`, behind the name: hooks, where each begins and ends, entries, octets.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Shape {
    hooks: u32,
    entries: [u32; 5],
    underflows: [u32; 5],
    count: u32,
    octets: u32,
}

/// `XT_TABLE_MAXNAMELEN`.
const LONGEST_NAME: usize = 32;

/// Those of the calling thread's namespace.
pub fn all() -> impl Iterator<Item = Table> {
    FAMILIES.iter().flat_map(|family| {
        // No such file: no such table.
        let there = fs::read_to_string(family.names).unwrap_or_default();
        NAMES
            .into_iter()
            .filter(move |name| there.lines().any(|there| there == *name))
            .map(move |name| Table { family, name })
    })
}

impl Table {
    /// How large it is; `None` where it is gone.
    pub fn shape(&self) -> Option<Shape> {
        let mut answer = [0; LONGEST_NAME + size_of::<Shape>()];
        self.ask(INFO, &mut answer).ok()?;
        Some(bytemuck::pod_read_unaligned(&answer[LONGEST_NAME..]))
    }

    /// A digest of its rules, without what they counted; `None` where it has another shape by now.
    pub fn contents(&self, shape: &Shape) -> Option<u64> {
        /// `struct ipt_get_entries`: the name, and the octets of the entries, which begin at a multiple of eight.
        const ENTRIES_AT: usize = 40;
        let octets = usize::try_from(shape.octets).ok()?;
        let mut answer = vec![0; ENTRIES_AT + octets];
        answer[LONGEST_NAME..][..4].copy_from_slice(&shape.octets.to_ne_bytes());
        self.ask(ENTRIES, &mut answer).ok()?;
        Some(self.family.digest(&answer[ENTRIES_AT..]))
    }

    fn ask(&self, option: c_int, answer: &mut [u8]) -> io::Result<()> {
        answer[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let socket = UdpSocket::bind(self.family.any)?;
        let mut length = answer.len() as socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes no more than `length` octets.
        let failed = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                self.family.level,
                option,
                answer.as_mut_ptr().cast::<c_void>(),
                &raw mut length,
            )
        };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Family {
    fn digest(&self, mut entries: &[u8]) -> u64 {
        const COUNTERS: usize = 16;
        let mut hasher = DefaultHasher::new();
        while let Some(length) = entries.get(self.length_at..self.length_at + 2) {
            let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
            let Some(entry) = entries.get(..length) else { break };
            let Some(rule) = entry.get(self.counters_at + COUNTERS..) else { break };
            hasher.write(&entry[..self.counters_at]);
            hasher.write(rule);
            entries = &entries[length..];
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two entries, as long as the kernel's shortest.
    fn entries(family: &Family) -> (Vec<u8>, usize) {
        let length = family.counters_at + 16 + 40;
        let mut entries = vec![0; 2 * length];
        for entry in entries.chunks_exact_mut(length) {
            entry[family.length_at..][..2].copy_from_slice(&(length as u16).to_ne_bytes());
        }
        (entries, length)
    }

    #[test]
    fn a_digest_heeds_all_but_what_was_counted() {
        for family in &FAMILIES {
            let (before, length) = entries(family);
            for at in 0..before.len() {
                let mut after = before.clone();
                after[at] ^= 1;
                let in_entry = at % length;
                if (family.length_at..family.length_at + 2).contains(&in_entry) {
                    continue;
                }
                let is_counted = (family.counters_at..family.counters_at + 16).contains(&in_entry);
                let is_same = family.digest(&before) == family.digest(&after);
                assert_eq!(is_same, is_counted, "{}: octet {at}", family.names);
            }
        }
    }

    #[test]
    fn what_is_no_table_is_digested_to_its_end_all_the_same() {
        for family in &FAMILIES {
            let (mut entries, length) = entries(family);
            for wrong in [0, 1, 100, u16::MAX] {
                entries[length + family.length_at..][..2].copy_from_slice(&wrong.to_ne_bytes());
                family.digest(&entries);
            }
        }
    }
}
