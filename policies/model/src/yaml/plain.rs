//! What YAML 1.1 readers take an unquoted scalar for. Kubernetes and kubectl read so
//! (sigs.k8s.io/yaml): `on` is a boolean, `1_000` and `0120` are the numbers 1000 and 80, where a
//! YAML 1.2 reader sees two strings and 120.

/// What an unquoted scalar is, if not a string.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// An integer of 64 bits, however it is written (`8e1`, `80.0`).
    Whole(i64),
    /// Any other number.
    Number(f64),
}

/// The kind of an unquoted scalar; `None` for a string.
pub(super) fn not_a_string(text: &str) -> Option<Kind> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Kind::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(Kind::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(Kind::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => Some(Kind::Number(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(Kind::Number(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => Some(Kind::Number(f64::NEG_INFINITY)),
        _ => number(text),
    }
}

/// The text of a scalar that is no string: it holds none of what could follow it.
pub(super) fn token(text: &str) -> &str {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | '~');
    text.find(|c| !is_inside(c)).map_or(text, |end| &text[..end])
}

fn number(text: &str) -> Option<Kind> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits = if text.starts_with('.') { text.to_owned() } else { text.replace('_', "") };
    let (negative, unsigned) = match digits.strip_prefix(['+', '-']) {
        Some(unsigned) => (digits.starts_with('-'), unsigned),
        None => (false, digits.as_str()),
    };
    if let Some(magnitude) = integer(unsigned) {
        let magnitude = i128::from(magnitude);
        let whole = i64::try_from(if negative { -magnitude } else { magnitude });
        return Some(whole.map_or(Kind::Number(magnitude as f64), Kind::Whole));
    }
    let float = is_decimal(unsigned).then(|| digits.parse::<f64>().ok())?.filter(|float| float.is_finite())?;
    // Beyond these a float is printed with an exponent, which is no integer to its reader.
    let is_whole = float.fract() == 0.0 && float.abs() < 1e15;
    Some(if is_whole { Kind::Whole(float as i64) } else { Kind::Number(float) })
}

/// As Go's `strconv.ParseUint(text, 0, 64)`, underscores aside.
fn integer(text: &str) -> Option<u64> {
    let prefixed = |prefixes: [&str; 2]| prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    let (rest, radix) = if let Some(rest) = prefixed(["0x", "0X"]) {
        (rest, 16)
    } else if let Some(rest) = prefixed(["0b", "0B"]) {
        (rest, 2)
    } else if let Some(rest) = prefixed(["0o", "0O"]) {
        (rest, 8)
    } else if let Some(rest) = text.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        (rest, 8)
    } else {
        (text, 10)
    };
    if rest.starts_with(['+', '-']) { None } else { u64::from_str_radix(rest, radix).ok() }
}

/// `12`, `1.5`, `.5`, `1.`, `12e3`, `1.5E-3`.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_reads_as_something_else() {
        let wholes = [
            ("1", 1),
            ("1_000", 1000),
            ("1__0", 10),
            ("0_1", 1),
            ("4_2", 42),
            ("0b1_0", 2),
            ("0x_1", 1),
            ("0x1f", 31),
            ("12e3", 12_000),
            ("0o7", 7),
            ("1.0", 1),
            ("+1", 1),
            ("-0x1", -1),
            ("007", 7),
            ("0120", 80),
            ("08", 8),
            ("1e5", 100_000),
            ("8E+1", 80),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, number) in wholes {
            assert_eq!(not_a_string(text), Some(Kind::Whole(number)), "{text}");
        }
        for text in [".5", ".inf", "-.INF", "+.Inf", ".nan", "1.5", "1e-3", "1e30", "18446744073709551615"] {
            assert!(matches!(not_a_string(text), Some(Kind::Number(_))), "{text}");
        }
        for (texts, value) in [(["y", "yes", "on", "true", "True"], true), (["N", "No", "OFF", "False", "n"], false)] {
            for text in texts {
                assert_eq!(not_a_string(text), Some(Kind::Bool(value)), "{text}");
            }
        }
        for text in ["", "~", "null"] {
            assert_eq!(not_a_string(text), Some(Kind::Null), "{text}");
        }
        for text in [
            "web",
            "v1.2.3",
            "_1",
            "1a",
            "0xg",
            "2001-01-01",
            "1-2",
            "e3",
            "yEs",
            "tRUE",
            "1:30",
            ".",
            "-",
            "+.",
            "0x",
            "10.0.0.1",
            "0x-1",
            "1e999",
            "--1",
        ] {
            assert_eq!(not_a_string(text), None, "{text}");
        }
    }
}
