//! A text as pieces that can be read each by itself: the documents of a stream, the items of a List.

use super::{
    found::{Class, Reading},
    from_json, from_yaml,
    pieces::{Piece, Pieces},
};
use std::ops::ControlFlow;

/// A run of whole lines.
#[derive(Clone, Debug)]
pub(super) struct Part<'t> {
    pub(super) text: &'t str,
    /// Lines before it.
    pub(super) lines_before: u32,
}

/// Cuts a text, in order.
pub(super) fn cut<'t>(reading: &Reading, text: &'t str, pieces: &mut Pieces<'_, 't>) -> ControlFlow<()> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    split(text, &mut |part| {
        if part.text.trim_start().starts_with(['{', '[']) {
            return from_json::cut(reading, &part, pieces);
        }
        // As `helm template` leaves them behind.
        if part.text.lines().all(|row| is_nothing(row) || row.trim_end() == "---") {
            return ControlFlow::Continue(());
        }
        match list(reading, &part) {
            Some((class, items)) => {
                items.into_iter().try_for_each(|part| pieces.add(Piece::Yaml { part, list: class.clone() }))
            }
            None => pieces.add(Piece::Yaml { part, list: None }),
        }
    })
}

/// Cuts before each `---` at the beginning of a line: it starts a document wherever it stands
/// (YAML 1.2, 9.1.2). Directives stay with the document they are for.
fn split<'t>(text: &'t str, each: &mut dyn FnMut(Part<'t>) -> ControlFlow<()>) -> ControlFlow<()> {
    let (mut start, mut lines_before) = (0, 0u32);
    for (at, _) in text.match_indices("---") {
        let (before, from) = text.split_at(at);
        let begins_row = before.is_empty() || before.ends_with('\n');
        let document = &text[start..at];
        let has_begun = || !document.lines().all(|row| is_nothing(row) || row.starts_with('%'));
        if begins_row && is_document_start(from) && has_begun() {
            each(Part { text: document, lines_before })?;
            lines_before = lines_before.saturating_add(breaks(document));
            start = at;
        }
    }
    each(Part { text: &text[start..], lines_before })
}

fn is_nothing(row: &str) -> bool {
    row.trim().is_empty() || row.starts_with('#')
}

/// How many lines end in a text.
pub(super) fn breaks(text: &str) -> u32 {
    // In chunks that a byte can count, which compiles to a few instructions each.
    let of_chunk = |chunk: &[u8]| chunk.iter().fold(0u8, |count, byte| count.wrapping_add(u8::from(*byte == b'\n')));
    text.as_bytes().chunks(u8::MAX.into()).fold(0u32, |count, chunk| count.saturating_add(of_chunk(chunk).into()))
}

fn is_document_start(text: &str) -> bool {
    text.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// The items of a List that is written as `kubectl get -o yaml` writes it, so that none needs another:
/// in block style, without anchors.
fn list<'t>(reading: &Reading, part: &Part<'t>) -> Option<(Option<Class>, Vec<Part<'t>>)> {
    let (mut items, mut head) = (Vec::new(), String::new());
    let (mut at, mut start, mut indent) = (0, None, None);
    let mut place = Place::Head;
    for (line, row) in (part.lines_before..).zip(part.text.split_inclusive('\n')) {
        let (text, end) = (row.trim_end(), at + row.len());
        let nothing = text.is_empty() || text.trim_start().starts_with('#');
        if is_item(row, indent) && place == Place::Items {
            indent = Some(row.len() - row.trim_start_matches(' ').len());
            items.extend(start.replace((at, line)).map(|begin| cut_at(part, begin, at)));
        } else if place == Place::Items && !nothing && !row.starts_with(' ') {
            items.extend(start.take().map(|begin| cut_at(part, begin, at)));
            place = Place::Tail;
        } else if place == Place::Head && text == "items:" {
            place = Place::Items;
        }
        match place {
            Place::Head | Place::Tail => head.push_str(row),
            Place::Items if start.is_none() && !nothing && text != "items:" => return None,
            Place::Items => {}
        }
        at = end;
    }
    items.extend(start.map(|begin| cut_at(part, begin, at)));
    if items.is_empty() || has_anchors(part.text) {
        return None;
    }
    let roots = from_yaml::roots(reading, &Part { text: &head, lines_before: 0 }).ok()?;
    let [head] = &roots[..] else { return None };
    let of_items = reading.class(head, 0, None).ok()?.of_items()?;
    Some((of_items, items))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Items,
    Tail,
}

fn is_item(row: &str, indent: Option<usize>) -> bool {
    let dash = row.trim_start_matches(' ');
    let is_at = indent.is_none_or(|indent| row.len() - dash.len() == indent);
    is_at && dash.strip_prefix('-').is_some_and(|rest| rest.starts_with([' ', '\r', '\n']))
}

fn cut_at<'t>(part: &Part<'t>, (start, lines_before): (usize, u32), end: usize) -> Part<'t> {
    Part { text: part.text.get(start..end).unwrap_or_default(), lines_before }
}

/// Whether an anchor or alias may stand in a text: `&` or `*` where a value begins.
fn has_anchors(text: &str) -> bool {
    let in_flow = |word: &str| ["[&", "[*", "{&", "{*", ",&", ",*"].iter().any(|sign| word.contains(sign));
    text.lines().any(|row| {
        let mut begins_value = true;
        row.split_ascii_whitespace().any(|word| {
            let is_anchor = (begins_value && word.starts_with(['&', '*'])) || in_flow(word);
            begins_value = word.ends_with([':', '-', '?', '[', '{', ',']) || word.starts_with('!');
            is_anchor
        })
    })
}
