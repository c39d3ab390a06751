//! Packets for Wireshark and tcpdump.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, io, process};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Writes frames to a new file in `pcap/` under cargo's target folder; its path.
pub fn write_pcap(frames: &[&[u8]]) -> io::Result<PathBuf> {
    let folder = target().join("pcap");
    fs::create_dir_all(&folder)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("{}-{number}.pcap", process::id()));
    fs::write(&path, pcap(frames))?;
    Ok(path)
}

/// The target folder: this program was built in `<target>/<profile>/deps` or `<target>/<profile>`.
fn target() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let found = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    found.map_or_else(env::temp_dir, Path::to_path_buf)
}

/// The classic format, with the machine's byte order and times of zero.
fn pcap(frames: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    let words = |words: &[u32], file: &mut Vec<u8>| {
        file.extend(words.iter().flat_map(|word| word.to_ne_bytes()))
    };
    // Magic number, version 2.4, time zone, accuracy, longest frame, Ethernet.
    words(&[0xa1b2_c3d4], &mut file);
    file.extend([2_u16, 4].iter().flat_map(|part| part.to_ne_bytes()));
    words(&[0, 0, 0x4_0000, 1], &mut file);
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        words(&[0, 0, length, length], &mut file);
        file.extend(*frame);
    }
    file
}
