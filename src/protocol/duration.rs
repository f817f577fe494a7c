//! Durations as people write them: `"60s"`, `"10m"`, `"12h"`, `"30d"`, or a bare whole number of seconds.

use std::time::Duration;

/// Largest first, so that printing finds the shortest form. Weeks and months are left out: "1m" must mean one thing.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Reads one duration; nothing may stand before the number, between it and its unit, or after.
pub fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = match text.strip_suffix(|last: char| !last.is_ascii_digit()) {
        Some(digits) => (digits, text.chars().next_back()?),
        None => (text, 's'),
    };
    // Our own look at the digits, since `u64::from_str` also takes a leading plus.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (_, seconds) = UNITS.into_iter().find(|(letter, _)| *letter == unit)?;
    let seconds = digits.parse::<u64>().ok()?.checked_mul(seconds)?;
    Some(Duration::from_secs(seconds))
}

/// Writes a duration in the largest unit that divides it; fractions of a second are not configuration.
pub fn print(duration: Duration) -> String {
    let seconds = duration.as_secs();
    UNITS
        .into_iter()
        .find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length))
        .map_or_else(
            || format!("{seconds}s"),
            |(unit, length)| format!("{}{unit}", seconds / length),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        for (text, seconds) in [
            ("60s", 60),
            ("10m", 600),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("0s", 0),
            ("007s", 7),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn a_bare_whole_number_is_seconds() {
        assert_eq!(parse("90"), Some(Duration::from_secs(90)));
    }

    #[test]
    fn anything_else_is_no_duration() {
        let overflow = format!("{}d", u64::MAX);
        for text in [
            "", "s", "-1s", "+1s", "1.5h", "1 h", " 1h", "1h ", "1h30m", "1w", "1M", "1ms", "٣s",
            "1e3", &overflow,
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (90, "90s"),
            (7_200, "2h"),
            (86_400, "1d"),
            (90_000, "25h"),
        ] {
            assert_eq!(print(Duration::from_secs(seconds)), text);
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)));
        }
    }
}
