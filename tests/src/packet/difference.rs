//! What differs between two packets, field by field.

use super::pcap::write_pcap;
use super::show::lines;

/// The layers of both that differ; `None` where nothing does.
#[must_use]
pub fn difference(wanted: &[u8], got: &[u8]) -> Option<String> {
    if wanted == got {
        return None;
    }
    let (wanted_lines, got_lines) = (lines(wanted), lines(got));
    let mut told = Vec::new();
    for index in 0..wanted_lines.len().max(got_lines.len()) {
        match (wanted_lines.get(index), got_lines.get(index)) {
            (Some(wanted), Some(got)) if wanted == got => told.push(format!("  {wanted}")),
            (wanted, got) => {
                told.extend(wanted.map(|line| format!("- {line}")));
                told.extend(got.map(|line| format!("+ {line}")));
            }
        }
    }
    // What no line shows, such as reserved bits.
    let first = wanted.iter().zip(got).position(|(wanted, got)| wanted != got);
    let at = first.unwrap_or(wanted.len().min(got.len()));
    told.push(format!(
        "  first difference at octet {at}; {} octets wanted, {} got",
        wanted.len(),
        got.len()
    ));
    Some(told.join("\n"))
}

/// Asserts that two packets are the same, octet for octet.
///
/// # Panics
/// When they are not: with the difference, and the name of a pcap that has both (first the wanted one).
#[track_caller]
pub fn assert_same(wanted: &[u8], got: &[u8]) {
    if let Some(told) = difference(wanted, got) {
        let place = match write_pcap(&[wanted, got]) {
            Ok(path) => path.display().to_string(),
            Err(error) => format!("(not written: {error})"),
        };
        panic!("the packet is not as wanted (-):\n{told}\nboth are in {place}");
    }
}
