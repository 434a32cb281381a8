//! Text that came from input, as Markdown shows it: never as markup, a link, a mention or HTML.

use std::fmt::Write as _;

/// A name as code: every character that Markdown, a table or HTML would take for more than itself is
/// written as a character reference, and so is what a terminal would obey.
pub(crate) fn code(text: &str) -> String {
    format!("<code>{}</code>", plain(text))
}

/// The same without the code's looks.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = "";
    for (at, c) in text.char_indices() {
        let is_link = (c == ':' && text[at..].starts_with("://")) || (c == '.' && before.ends_with("www"));
        if !is_link && (c.is_alphanumeric() || matches!(c, ' ' | '-' | '.' | '/' | ':' | ',' | '=' | ';' | '(' | ')')) {
            out.push(c);
        } else if c.is_control() {
            let _ = write!(out, "&#92;u&#123;{:x}&#125;", u32::from(c));
        } else {
            let _ = write!(out, "&#{};", u32::from(c));
        }
        before = &text[..at + c.len_utf8()];
    }
    out
}

/// A fenced block that no line of the text can end.
pub(crate) fn block(language: &str, text: &str) -> String {
    let longest = text.lines().map(|line| line.chars().take_while(|c| *c == '`' || *c == ' ').count()).max();
    let fence = "`".repeat(longest.unwrap_or(0).max(2) + 1);
    let text: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    format!("{fence}{language}\n{text}{}{fence}\n", if text.ends_with('\n') { "" } else { "\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_markup() {
        assert_eq!(code("shop/web-1"), "<code>shop/web-1</code>");
        assert_eq!(
            plain("a|b`c`<i>@team [x](http://y) www.z_\n"),
            "a&#124;b&#96;c&#96;&#60;i&#62;&#64;team &#91;x&#93;(http&#58;//y) www&#46;z&#95;&#92;u&#123;a&#125;"
        );
        assert_eq!(block("yaml", "a: |\n  ```\n"), "``````yaml\na: |\n  ```\n``````\n");
    }
}
