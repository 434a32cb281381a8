//! Times as people type them: a moment in RFC 3339, or how long ago. The present is an argument.

use jiff::{SignedDuration, Timestamp};
use model::record::UnixNanos;

/// The moment that `text` means, if it is now `now`.
pub(crate) fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = duration(text) {
        return now.checked_sub(ago).map_err(|_| format!("`{text}` ago is before all time"));
    }
    text.parse().map_err(|_| {
        format!(
            "`{text}` is no time; give one like 2026-01-31T12:00:00Z, or how long ago it was, like 15m, 2h or 1d12h"
        )
    })
}

/// `90s`, `15m`, `2h30m`, `1d`; `None` for anything else.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut seconds: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: i64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 7 * 86_400,
            _ => return None,
        };
        seconds = seconds.checked_add(count.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then(|| SignedDuration::from_secs(seconds))
}

/// Nanoseconds since the epoch; the ends of the representable time where it lies beyond them.
pub(crate) fn nanos(moment: Timestamp) -> UnixNanos {
    let nanos = moment.as_nanosecond();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// As rows show it: UTC, to the millisecond.
pub(crate) fn shown(at: UnixNanos) -> String {
    Timestamp::from_nanosecond(at.into()).map_or_else(|_| at.to_string(), |moment| format!("{moment:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<String, String> {
        let now = "2026-01-31T12:00:00Z".parse().expect("a time");
        moment(text, now).map(|moment| moment.to_string())
    }

    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(at("15m").unwrap(), "2026-01-31T11:45:00Z");
        assert_eq!(at("1d2h").unwrap(), "2026-01-30T10:00:00Z");
        assert_eq!(at("now").unwrap(), "2026-01-31T12:00:00Z");
        assert_eq!(at("2026-01-01T00:00:00.5+01:00").unwrap(), "2025-12-31T23:00:00.5Z");
    }

    #[test]
    fn what_is_no_time_is_refused_with_examples() {
        for text in [
            "",
            "yesterday",
            "15",
            "m",
            "5x",
            "-5m",
            "99999999999999999999s",
            "9223372036854775807w",
            "2026-13-01T00:00:00Z",
        ] {
            assert!(at(text).unwrap_err().contains("2026-01-31T12:00:00Z"), "{text}");
        }
        assert!(at("999999999999s").unwrap_err().contains("before all time"));
    }

    #[test]
    fn shown_times_are_utc_to_the_millisecond() {
        assert_eq!(shown(1_767_225_600_123_456_789), "2026-01-01T00:00:00.123Z");
        assert_eq!(shown(i64::MIN), "1677-09-21T00:12:43.145Z");
    }
}
