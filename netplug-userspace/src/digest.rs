//! A digest that is the same in every build and on every node: names, MACs and marks of ours derive from it.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// The digest of parts, which stay apart: "a", "bc" is not "ab", "c".
pub(crate) fn of(parts: &[impl AsRef<[u8]>]) -> u64 {
    let mut hasher = SipHasher13::new();
    for part in parts {
        let part = part.as_ref();
        hasher.write(&part.len().to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn names_that_are_on_disk_stay_what_they_are() {
        assert_eq!(of(&["pods", "web-0001", "eth0"]), 0xe2f2_843c_e696_6f53);
        assert_ne!(of(&["a", "bc"]), of(&["ab", "c"]));
    }
}
