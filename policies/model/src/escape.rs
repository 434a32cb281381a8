//! Names from the network, the API or a log are data: before a terminal sees them, everything that could move its
//! cursor, change its colours or turn its text around is written as an escape that a person can read.

use std::{
    borrow::Cow,
    io::{self, Write},
};

/// The text with what a terminal would obey made visible; line breaks and tabs too, so that a value stays in its row.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 8), |mut out, c| {
        if is_obeyed(c) {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    }))
}

/// The same for a JSON text, where such a character can only stand inside a string. Line breaks stay: there they are
/// layout.
pub fn json(text: &str) -> Cow<'_, str> {
    let escapes = |c: char| c != '\n' && is_obeyed(c);
    if !text.contains(escapes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if escapes(c) {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Writes lines with [`printable`] text; what is written at once must be whole characters.
pub struct Lines<W>(pub W);

/// Writes a JSON text as [`json`] has it; what is written at once must be whole characters.
pub struct Json<W>(pub W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        escaped(&mut self.0, bytes, |text| Cow::Owned(text.split('\n').map(printable).collect::<Vec<_>>().join("\n")))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Write for Json<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        escaped(&mut self.0, bytes, json)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn escaped(out: &mut impl Write, bytes: &[u8], escape: impl Fn(&str) -> Cow<'_, str>) -> io::Result<usize> {
    // Nearly everything is plain, and there is much of it.
    match bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
        true => out.write_all(bytes)?,
        false => out.write_all(escape(&String::from_utf8_lossy(bytes)).as_bytes())?,
    }
    Ok(bytes.len())
}

/// Control characters (C0, DEL, C1), and those that are not seen but change how others are: separators of lines and
/// paragraphs, direction marks and overrides, joiners, tags.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(printable("\x1b[2Jweb\u{9b}31m\r\n\t\x07\x7f"), r"\u{1b}[2Jweb\u{9b}31m\r\n\t\u{7}\u{7f}");
        assert_eq!(printable("web\u{202e}nimda"), r"web\u{202e}nimda");
        assert!(matches!(printable("naïve-Ünïcode-日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_stay_lines_and_hold_nothing_that_is_obeyed() {
        let mut out = Vec::new();
        writeln!(Lines(&mut out), "a \x1b[2J\u{202e}é\nb").expect("memory");
        assert_eq!(String::from_utf8(out).expect("text"), "a \\u{1b}[2J\\u{202e}é\nb\n");
        let mut out = Vec::new();
        writeln!(Json(&mut out), "[\"\u{9b}\"]").expect("memory");
        assert_eq!(String::from_utf8(out).expect("text"), "[\"\\u009b\"]\n");
    }

    #[test]
    fn escaped_json_reads_back_as_what_it_was() {
        let name = "a\u{9b}31m\u{202e}\u{e0001}\x7f\n\"é";
        let text = json(&serde_json::to_string_pretty(&[name]).expect("a string")).into_owned();
        assert!(text.chars().all(|c| c == '\n' || !is_obeyed(c)), "{text}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).expect("still JSON"), [name]);
    }
}
