//! What YAML 1.1 readers take an unquoted scalar for. Kubernetes and kubectl read so
//! (sigs.k8s.io/yaml): `on` is a boolean and `1_000` a number, where a YAML 1.2 reader sees strings.

/// What an unquoted scalar is, if not a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
}

/// The kind of an unquoted scalar; `None` for a string.
pub(super) fn not_a_string(text: &str) -> Option<Kind> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Kind::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(Kind::Bool),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(Kind::Bool),
        ".nan" | ".NaN" | ".NAN" => Some(Kind::Number),
        _ => is_number(text).then_some(Kind::Number),
    }
}

fn is_number(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return false;
    }
    let digits = text.replace('_', "");
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let radix = |prefix: [&str; 2], radix: u32| {
        let rest = prefix.iter().find_map(|p| unsigned.strip_prefix(p));
        rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    radix(["0x", "0X"], 16) || radix(["0b", "0B"], 2) || radix(["0o", "0O"], 8) || is_decimal(unsigned)
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
        for text in
            ["1", "1_000", "1__0", "0_1", "4_2", "0b1_0", "0x_1", "0x1f", "12e3", "0o7", "1.0", ".5", "+1", "-0x1"]
        {
            assert_eq!(not_a_string(text), Some(Kind::Number), "{text}");
        }
        for text in [".inf", "-.INF", "+.Inf", ".nan", "007", "1e5"] {
            assert_eq!(not_a_string(text), Some(Kind::Number), "{text}");
        }
        for text in ["y", "N", "yes", "No", "on", "OFF", "true"] {
            assert_eq!(not_a_string(text), Some(Kind::Bool), "{text}");
        }
        for text in ["", "~", "null"] {
            assert_eq!(not_a_string(text), Some(Kind::Null), "{text}");
        }
        for text in
            ["web", "v1.2.3", "_1", "1a", "0xg", "2001-01-01", "1-2", "e3", "yEs", "1:30", ".", "-", "+.", "10.0.0.1"]
        {
            assert_eq!(not_a_string(text), None, "{text}");
        }
    }
}
