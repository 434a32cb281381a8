//! Keeping the log within a size and an age: whole segments go, the oldest hour first, and are counted.

use crate::{
    Error,
    disk::{self, HOUR, Place},
    list::{Listing, Segment, list_segments},
};
use jiff::civil;
use model::record::UnixNanos;

/// What was given up to keep within the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes this node's oldest segments until the bounds hold.
pub(crate) fn retain(
    place: &Place,
    keep_bytes: Option<u64>,
    keep_age: Option<i64>,
    now: UnixNanos,
) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    if keep_bytes.is_none() && keep_age.is_none() {
        return Ok(removed);
    }
    let mut listing = Listing::default();
    list_segments(&place.cluster_folder(), &place.cluster, &mut listing);
    let own: Vec<Segment> = listing.segments.into_iter().filter(|segment| segment.node == place.node).collect();
    let mut held: u64 = own.iter().map(|segment| segment.bytes).sum();
    for segment in own {
        let too_old = keep_age.is_some_and(|age| hour_end(&segment).is_some_and(|end| now.saturating_sub(end) > age));
        if !too_old && keep_bytes.is_none_or(|keep| held <= keep) {
            continue;
        }
        disk::remove_with_empty_folders(&segment.path, &place.cluster_folder())?;
        held -= segment.bytes;
        removed.segments += 1;
        removed.bytes += segment.bytes;
    }
    Ok(removed)
}

/// When the segment's hour ended.
fn hour_end(segment: &Segment) -> Option<UnixNanos> {
    let date: civil::Date = segment.date.parse().ok()?;
    let begin = date.at(segment.hour.parse().ok()?, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    i64::try_from(begin.timestamp().as_nanosecond()).ok()?.checked_add(HOUR)
}
