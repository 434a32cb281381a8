//! Label combinations that nobody has yet, as boxes: for each key, which values it may have.

use model::labels::{Labels, Operator, Selector};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// How values begin that stand for any other value.
const FRESH: &str = "any-other-";

/// What a key may be: absent or not, and which values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeySet {
    absent: bool,
    values: Values,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Values {
    Only(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

impl KeySet {
    /// Anything.
    fn any() -> Self {
        Self { absent: true, values: Values::AllBut(BTreeSet::new()) }
    }

    /// One of these values.
    pub(crate) fn only(values: impl IntoIterator<Item = String>) -> Self {
        Self { absent: false, values: Values::Only(values.into_iter().collect()) }
    }

    /// Present, with none of these values.
    pub(crate) fn present_but(values: impl IntoIterator<Item = String>) -> Self {
        Self { absent: false, values: Values::AllBut(values.into_iter().collect()) }
    }

    fn complement(&self) -> Self {
        let values = match &self.values {
            Values::Only(values) => Values::AllBut(values.clone()),
            Values::AllBut(values) => Values::Only(values.clone()),
        };
        Self { absent: !self.absent, values }
    }

    fn intersection(&self, other: &Self) -> Self {
        use Values::{AllBut, Only};
        let values = match (&self.values, &other.values) {
            (Only(a), Only(b)) => Only(a & b),
            (Only(a), AllBut(b)) | (AllBut(b), Only(a)) => Only(a - b),
            (AllBut(a), AllBut(b)) => AllBut(a | b),
        };
        Self { absent: self.absent && other.absent, values }
    }

    fn is_empty(&self) -> bool {
        !self.absent && matches!(&self.values, Values::Only(values) if values.is_empty())
    }

    /// Absent if it may be, else a value that it may have.
    fn witness(&self) -> Option<String> {
        match &self.values {
            _ if self.absent => None,
            Values::Only(values) => values.first().cloned(),
            Values::AllBut(values) => (0..).map(|n| format!("{FRESH}{n}")).find(|name| !values.contains(name)),
        }
    }

    /// Whether a witness has this value only because it had to have one.
    pub(crate) fn is_fresh(value: &str) -> bool {
        value.starts_with(FRESH)
    }
}

/// Label combinations: for each key named what it may be; every other key may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LabelBox(BTreeMap<String, KeySet>);

impl LabelBox {
    /// Restricts a key further; `None` when nothing is left.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, set: &KeySet) -> Option<Self> {
        let entry = self.0.entry(key.to_owned()).or_insert_with(KeySet::any);
        *entry = entry.intersection(set);
        (!entry.is_empty()).then_some(self)
    }

    /// The same, whatever a key is.
    #[must_use]
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    /// Whether it names nothing that a label must be.
    pub(crate) fn says_nothing(&self) -> bool {
        self.0.values().all(|set| set.absent)
    }

    /// One combination of it, with as few labels as possible.
    pub(crate) fn witness(&self) -> Labels {
        self.0.iter().filter_map(|(key, set)| Some((key.clone(), set.witness()?))).collect()
    }

    /// Cuts it by a selector: what the selector selects, and the rest as disjoint boxes.
    pub(crate) fn cut(&self, selector: &Selector) -> (Option<Self>, Vec<Self>) {
        let (mut inside, mut outside) = (self.clone(), Vec::new());
        for (key, set) in conditions(selector) {
            outside.extend(inside.clone().with(&key, &set.complement()));
            match inside.with(&key, &set) {
                Some(rest) => inside = rest,
                None => return (None, outside),
            }
        }
        (Some(inside), outside)
    }
}

impl fmt::Display for LabelBox {
    /// What a label must be; what it must not be goes without saying, unless nothing else is said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positive = self.0.iter().filter(|(_, set)| !set.absent).map(|(key, set)| match &set.values {
            Values::Only(values) if values.len() == 1 => format!("{key}={}", values.first().map_or("", String::as_str)),
            Values::Only(values) => format!("{key} in ({})", values.iter().cloned().collect::<Vec<_>>().join(",")),
            Values::AllBut(_) => key.clone(),
        });
        let terms: Vec<String> = positive.collect();
        if terms.is_empty() { f.pad("any other labels") } else { f.pad(&terms.join(",")) }
    }
}

/// The conditions of a selector, all of which must hold.
fn conditions(selector: &Selector) -> impl Iterator<Item = (String, KeySet)> {
    let labels = selector.match_labels.iter().map(|(key, value)| (key.clone(), KeySet::only([value.clone()])));
    let expressions = selector.match_expressions.iter().map(|requirement| {
        let values = requirement.values.iter().cloned();
        let set = match requirement.operator {
            Operator::In => KeySet::only(values),
            Operator::NotIn => KeySet::only(values).complement(),
            Operator::Exists => KeySet::present_but([]),
            Operator::DoesNotExist => KeySet::present_but([]).complement(),
        };
        (requirement.key.clone(), set)
    });
    labels.chain(expressions)
}

/// The cells into which selectors cut a box, each a class of combinations that no selector tells
/// apart, by one box of it; at most `most`, and whether that was all.
pub(crate) fn cells(whole: LabelBox, selectors: &[&Selector], most: usize) -> (Vec<LabelBox>, bool) {
    let mut boxes: Vec<(Vec<bool>, LabelBox)> = vec![(Vec::new(), whole)];
    let mut complete = true;
    for selector in selectors {
        let mut next = Vec::with_capacity(boxes.len() + 1);
        for (signature, cell) in boxes {
            let (inside, outside) = cell.cut(selector);
            let with = |hit: bool| [signature.as_slice(), &[hit]].concat();
            next.extend(inside.map(|cell| (with(true), cell)));
            next.extend(outside.into_iter().map(|cell| (with(false), cell)));
        }
        if next.len() > most {
            complete = false;
            next.truncate(most);
        }
        boxes = next;
    }
    boxes.sort();
    boxes.dedup_by(|a, b| a.0 == b.0);
    (boxes.into_iter().map(|(_, cell)| cell).collect(), complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::labels::Requirement;

    fn selector(key: &str, operator: Operator, values: &[&str]) -> Selector {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        Selector {
            match_labels: Labels::new(),
            match_expressions: vec![Requirement { key: key.to_owned(), operator, values }],
        }
    }

    #[test]
    fn every_combination_lies_in_just_one_cell() {
        let selectors = [
            selector("app", Operator::In, &["a", "b"]),
            selector("app", Operator::NotIn, &["b"]),
            selector("tier", Operator::Exists, &[]),
            selector("tier", Operator::DoesNotExist, &[]),
            selector("tier", Operator::In, &["x"]),
        ];
        let refs: Vec<_> = selectors.iter().collect();
        let (cells, complete) = cells(LabelBox::default(), &refs, 1000);
        assert!(complete);
        let signatures = cells.iter().map(|cell| {
            let labels = cell.witness();
            selectors.iter().map(|s| s.matches(&labels)).collect::<Vec<_>>()
        });
        let different: BTreeSet<_> = signatures.collect();
        assert_eq!(different.len(), cells.len());
        // app: a, b, anything else; tier: none, x, another.
        assert_eq!(cells.len(), 9);
    }
}
