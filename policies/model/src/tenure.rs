//! From when until when something held its addresses, as far as that is known.
//!
//! Always holds: the truth lies within `from..until`, and `surely_from..surely_until`, where it is not
//! empty, lies within the truth. Kubernetes stamps whole seconds, so an end at second N may be any
//! moment of N; a stamp with a fraction is taken as exact.

use crate::{cluster::Pod, record::UnixNanos};
use jiff::Timestamp;

pub(crate) const SECOND: UnixNanos = 1_000_000_000;

/// When something held its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// Not before.
    pub from: UnixNanos,
    /// Surely from here,
    pub surely_from: UnixNanos,
    /// until just before here; not before `surely_from` where nothing is sure.
    pub surely_until: UnixNanos,
    /// Not at this time or after.
    pub until: UnixNanos,
}

impl Tenure {
    /// It may have held them at any time.
    pub const UNKNOWN: Self =
        Self { from: UnixNanos::MIN, surely_from: UnixNanos::MAX, surely_until: UnixNanos::MAX, until: UnixNanos::MAX };

    /// As the pod's own stamps tell, which is all that an object in a file does.
    pub fn by_stamps(pod: &Pod) -> Self {
        let since = Self::since(pod.started, pod.running_since);
        match pod.ended {
            Some(end) if pod.completed => Self { surely_until: nanos(end), until: end_of(end), ..since },
            // It is to be gone by then, and may go at any moment.
            Some(end) => Self { surely_until: UnixNanos::MIN, until: end_of(end), ..since },
            // It holds none any more, and nobody says since when: it owned the address at other times only.
            None if pod.completed => Self { until: since.from, ..since },
            None => since,
        }
    }

    /// Of something that began at the one stamp or later, and had its addresses by the other. What has no stamp was
    /// always there.
    pub fn since(begun: Option<Timestamp>, by: Option<Timestamp>) -> Self {
        let surely_from = match (begun, by) {
            (_, Some(by)) => end_of(by),
            (Some(_), None) => UnixNanos::MAX,
            (None, None) => UnixNanos::MIN,
        };
        Self { from: begun.map_or(UnixNanos::MIN, nanos), surely_from, ..Self::UNKNOWN }
    }

    /// Whether it may have held them then.
    pub const fn possibly(&self, at: UnixNanos) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether it held them then.
    pub const fn surely(&self, at: UnixNanos) -> bool {
        self.surely_from <= at && at < self.surely_until && self.possibly(at)
    }

    /// It was gone at `until` at the latest, and nobody knows whether before, from `unsure` on.
    pub fn end(&mut self, unsure: UnixNanos, until: UnixNanos) {
        self.surely_until = self.surely_until.min(unsure);
        self.until = self.until.min(until);
    }
}

/// The first moment that is surely after an end so stamped.
pub(crate) fn end_of(stamp: Timestamp) -> UnixNanos {
    let whole = stamp.subsec_nanosecond() == 0;
    if whole { nanos(stamp).saturating_add(SECOND) } else { nanos(stamp) }
}

pub(crate) fn nanos(time: Timestamp) -> UnixNanos {
    let (least, most) = (i128::from(UnixNanos::MIN), i128::from(UnixNanos::MAX));
    UnixNanos::try_from(time.as_nanosecond().clamp(least, most)).unwrap_or(UnixNanos::MAX)
}
