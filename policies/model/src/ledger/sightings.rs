//! How often something was seen, by observer instance and hour, in few bytes.
//!
//! Always holds: instances in order, each with its hours in order, so that equal sightings are equal values; merging
//! takes the larger of each (law 10).

use super::SLICE;
use crate::record::UnixNanos;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Hours since 1970, the number of a ledger's slice.
pub type Hour = i32;

/// The hour in which a time lies.
pub fn hour_of(at: UnixNanos) -> Hour {
    // 64-bit nanoseconds hold five million hours, so that the number always fits.
    Hour::try_from(at.div_euclid(SLICE)).unwrap_or(if at < 0 { Hour::MIN } else { Hour::MAX })
}

/// One observer instance's hours, in order, with flows.
pub type Hours = (Arc<str>, Vec<(Hour, u32)>);

/// Adds flows to hours that are in order.
pub(super) fn add(hours: &mut Vec<(Hour, u32)>, hour: Hour, flows: u32) {
    // Rows come nearly in order of time.
    match hours.last_mut() {
        Some((last, all)) if *last == hour => *all = all.saturating_add(flows),
        Some((last, _)) if *last < hour => hours.push((hour, flows)),
        _ => match hours.binary_search_by_key(&hour, |(hour, _)| *hour) {
            Ok(place) => hours[place].1 = hours[place].1.saturating_add(flows),
            Err(place) => hours.insert(place, (hour, flows)),
        },
    }
}

/// Takes other hours that are in order, and `both` of what is in either.
pub(super) fn join(ours: &mut Vec<(Hour, u32)>, theirs: Vec<(Hour, u32)>, both: fn(u32, u32) -> u32) {
    if ours.is_empty() {
        *ours = theirs;
        return;
    }
    for (hour, flows) in theirs {
        match ours.binary_search_by_key(&hour, |(hour, _)| *hour) {
            Ok(place) => ours[place].1 = both(ours[place].1, flows),
            Err(place) => ours.insert(place, (hour, flows)),
        }
    }
}

/// Flows by observer instance and hour. An hour may have none: what was seen in it had begun before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings(Vec<Hours>);

impl Sightings {
    /// Of instances with their hours, each in order.
    pub(super) fn of(all: BTreeMap<Arc<str>, Vec<(Hour, u32)>>) -> Self {
        Self(all.into_iter().collect())
    }

    /// Adds flows. More than 2^32 - 1 of one edge, hour and observer count as so many.
    pub fn add(&mut self, instance: &Arc<str>, hour: Hour, flows: u64) {
        let flows = u32::try_from(flows).unwrap_or(u32::MAX);
        add(self.hours_of(instance), hour, flows);
    }

    /// The larger of both, cell by cell.
    pub fn merge(&mut self, other: Self) {
        self.join(other, u32::max);
    }

    /// Both together: `other` is of other flows.
    pub(super) fn sum(&mut self, other: Self) {
        self.join(other, u32::saturating_add);
    }

    fn join(&mut self, other: Self, both: fn(u32, u32) -> u32) {
        for (instance, theirs) in other.0 {
            join(self.hours_of(&instance), theirs, both);
        }
    }

    /// All flows.
    pub fn flows(&self) -> u64 {
        self.cells().map(|(_, _, flows)| u64::from(flows)).sum()
    }

    /// The hours in which anybody saw it, each once.
    pub fn hours(&self) -> BTreeSet<Hour> {
        self.cells().map(|(_, hour, _)| hour).collect()
    }

    /// Observer instance, hour, flows.
    pub fn cells(&self) -> impl Iterator<Item = (&Arc<str>, Hour, u32)> {
        self.0.iter().flat_map(|(instance, hours)| hours.iter().map(move |(hour, flows)| (instance, *hour, *flows)))
    }

    /// By observer instance: hours in order, with flows.
    pub fn by_instance(&self) -> &[Hours] {
        &self.0
    }

    fn hours_of(&mut self, instance: &Arc<str>) -> &mut Vec<(Hour, u32)> {
        let place = match self.0.binary_search_by(|(known, _)| known.cmp(instance)) {
            Ok(place) => place,
            Err(place) => {
                self.0.insert(place, (instance.clone(), Vec::new()));
                place
            }
        };
        &mut self.0[place].1
    }
}
