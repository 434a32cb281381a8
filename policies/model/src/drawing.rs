//! Text in drawings: whatever it holds, it stays between its quotes.

use std::fmt::Write as _;

/// A double-quoted string of the DOT language; backslashes would begin escapes of its own.
pub fn dot_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Quoted text of Mermaid; what is neither letter, digit nor harmless becomes an entity code (`#34;`).
pub fn mermaid_text(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '.' | '/' | ':' | ',' | '_') {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out.push('"');
    out
}
