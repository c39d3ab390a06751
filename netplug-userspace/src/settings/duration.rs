//! Durations as Go writes them: `60s`, `1m30s`, `1.5h` (`time.ParseDuration`).

use std::time::Duration;

/// Longest first, so that `ms` is not taken for `m`.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// The duration that `text` stands for; `None` where it is none, or below nothing.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    let mut is_empty = true;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let (unit, worth) = UNITS.iter().find(|(unit, _)| behind.starts_with(unit))?;
        seconds += number * worth;
        rest = &behind[unit.len()..];
        is_empty = false;
    }
    if is_empty { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read() {
        for (text, milliseconds) in [
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            (".5s", 500),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "60", "s", "1x", "-1s", "1m 30s", "1..5s", ".s", "m"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
