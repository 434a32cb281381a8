//! What names, label keys and label values may be (apimachinery, util/validation; RFC 1123, RFC 6335).

/// A subdomain's and a label key's prefix's longest.
const MAX_SUBDOMAIN: usize = 253;
/// A DNS label's, a label key's name's and a label value's longest.
const MAX_LABEL: usize = 63;

/// What is wrong with a namespace's name (a DNS label).
pub(super) fn label_problem(name: &str) -> Option<&'static str> {
    if name.len() > MAX_LABEL {
        Some("use at most 63 characters")
    } else if !is_lower(name) {
        Some("use lower-case letters, digits and hyphens, a letter or digit at both ends")
    } else {
        None
    }
}

/// What is wrong with an object's name (a DNS subdomain).
pub(super) fn subdomain_problem(name: &str) -> Option<&'static str> {
    if name.len() > MAX_SUBDOMAIN {
        Some("use at most 253 characters")
    } else if !name.split('.').all(is_lower) {
        Some("use lower-case letters, digits, hyphens and dots, a letter or digit at both ends and beside each dot")
    } else {
        None
    }
}

/// What is wrong with a label's key.
pub(super) fn key_problem(key: &str) -> Option<&'static str> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if name.is_empty() || name.len() > MAX_LABEL {
        Some("use 1 to 63 characters, after the slash if there is one")
    } else if !is_qualified(name) {
        Some(
            "use letters, digits, hyphens, underscores and dots, a letter or digit at both ends, and one slash at most",
        )
    } else if prefix.is_some_and(|prefix| subdomain_problem(prefix).is_some()) {
        Some("before the slash stands a domain in lower case, of at most 253 characters")
    } else {
        None
    }
}

/// What is wrong with a label's value.
pub(super) fn value_problem(value: &str) -> Option<&'static str> {
    if value.len() > MAX_LABEL {
        Some("use at most 63 characters")
    } else if !value.is_empty() && !is_qualified(value) {
        Some("use letters, digits, hyphens, underscores and dots, a letter or digit at both ends")
    } else {
        None
    }
}

/// What is wrong with a port's name.
pub(super) fn port_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 15 {
        Some("use 1 to 15 characters")
    } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        Some("use lower-case letters, digits and hyphens")
    } else if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        Some("use at least one letter; a number is written without quotes")
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        Some("a hyphen stands between two other characters")
    } else {
        None
    }
}

fn is_lower(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

fn is_qualified(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends_well = |end: Option<&u8>| end.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.iter().all(|b| inner(*b)) && ends_well(bytes.first()) && ends_well(bytes.last())
}
