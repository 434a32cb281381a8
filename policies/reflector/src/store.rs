//! What came of each kind, and whether somebody has been given it.

use crate::{Seen, kinds::KINDS, raw::Raw};
use kube::runtime::watcher::Event;
use model::yaml::{Class, Object, Reader, Wanted};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// A watch that failed so long ago works again: one that goes on failing is tried twice in this time at least.
const FORGETS: Duration = Duration::from_secs(75);

/// By namespace and name: the object, or why it cannot be read. `None`: of no kind that matters.
type Objects = BTreeMap<(String, String), Result<Option<Object>, String>>;

struct OfKind {
    class: Class,
    /// What errors and sources of objects name.
    file: Arc<str>,
    /// `None`: not listed yet.
    listed: Option<Objects>,
    /// A list that is not whole yet.
    coming: Objects,
    failed: Option<(Instant, String)>,
}

pub(crate) struct Store {
    kinds: Vec<OfKind>,
    news: bool,
}

impl Default for Store {
    fn default() -> Self {
        let kinds = KINDS.iter().map(|kind| OfKind {
            class: kind.class(),
            file: kind.full_name().into(),
            listed: None,
            coming: Objects::new(),
            failed: None,
        });
        Self { kinds: kinds.collect(), news: false }
    }
}

impl Store {
    /// Takes what came of a kind, by its place in [`KINDS`].
    pub(crate) fn event(&mut self, index: usize, event: Event<Raw>) {
        let Some(of) = self.kinds.get_mut(index) else { return };
        // A list begins without an answer of the API server's.
        if !matches!(event, Event::Init) {
            of.failed = None;
        }
        self.news |= match event {
            Event::Init => {
                of.coming.clear();
                false
            }
            Event::InitApply(raw) => {
                let object = of.read(&raw);
                of.coming.insert(raw.key(), object);
                false
            }
            Event::InitDone => {
                let whole = std::mem::take(&mut of.coming);
                let news = of.listed.as_ref() != Some(&whole);
                of.listed = Some(whole);
                news
            }
            Event::Apply(raw) => {
                let object = of.read(&raw);
                of.listed.as_mut().is_some_and(|objects| {
                    let news = objects.get(&raw.key()) != Some(&object);
                    objects.insert(raw.key(), object);
                    news
                })
            }
            Event::Delete(raw) => of.listed.as_mut().is_some_and(|objects| objects.remove(&raw.key()).is_some()),
        };
    }

    pub(crate) fn failed(&mut self, index: usize, at: Instant, why: String) {
        if let Some(of) = self.kinds.get_mut(index) {
            if of.failed.as_ref().is_none_or(|(_, before)| *before != why) {
                tracing::warn!("watch of {}: {why}; it is tried again", of.file);
            }
            of.failed = Some((at, why));
        }
    }

    /// Whether every kind was listed, and something changed since [`Store::take`].
    pub(crate) fn has_news(&self) -> bool {
        self.news && self.kinds.iter().all(|of| of.listed.is_some())
    }

    /// What there is.
    pub(crate) fn take(&mut self) -> Seen {
        self.news = false;
        let mut reader = Reader::new(Wanted::Everything);
        let mut left_out = Vec::new();
        for object in self.kinds.iter().filter_map(|of| of.listed.as_ref()).flat_map(BTreeMap::values) {
            let added = match object {
                Ok(None) => Ok(()),
                Ok(Some(object)) => reader.add(object.clone()).map_err(|why| why.to_string()),
                Err(why) => Err(why.clone()),
            };
            left_out.extend(added.err());
        }
        Seen { cluster: reader.finish(), left_out }
    }

    /// Kinds whose list or watch fails, or that were not listed yet, a sentence each.
    pub(crate) fn troubles(&self, now: Instant) -> Vec<String> {
        let trouble = |of: &OfKind| {
            let failed = of.failed.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < FORGETS);
            match (failed, &of.listed) {
                (Some((_, why)), Some(_)) => Some(format!("watch of {} is behind: {why}", of.file)),
                (Some((_, why)), None) => Some(format!("{} cannot be listed: {why}", of.file)),
                (None, None) => Some(format!("{} are not listed yet", of.file)),
                (None, Some(_)) => None,
            }
        };
        self.kinds.iter().filter_map(trouble).collect()
    }
}

impl OfKind {
    fn read(&self, raw: &Raw) -> Result<Option<Object>, String> {
        let object = Object::read(&self.file, &self.class, raw.text());
        object.map_err(|why| {
            tracing::warn!("left out: {why}");
            why.to_string()
        })
    }
}

#[cfg(test)]
mod tests;
