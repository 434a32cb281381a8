//! What a new link goes through until policy judges its packets: first it has no program, then its pod is not known, and
//! the node's setting is its rule (`unknownPod`). Both times are measured, from the last look that did not see the link.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long links waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Links that came while the agent ran, and were attached.
    pub links: u64,
    /// How long the last one had no program, at most.
    pub last: Duration,
    /// The longest of these times.
    pub longest: Duration,
    /// Links whose pod became known while the agent ran.
    pub known: u64,
    /// How long the last one's was not, at most.
    pub known_last: Duration,
    /// The longest of these times.
    pub known_longest: Duration,
    /// Links whose pod is not known now.
    pub unknown: u64,
    /// How long the oldest of them has waited.
    pub unknown_longest: Duration,
}

/// Measures it.
#[derive(Debug, Default)]
pub(crate) struct Measure {
    so_far: Window,
    /// Links whose pod is not known, by interface index: since when.
    unknown: BTreeMap<u32, Instant>,
}

impl Measure {
    /// Links with a program are `attached` now, `new` of them since a look at `before`. To which `bound` ones pods belong
    /// is known.
    pub(crate) fn attached(&mut self, new: u64, before: Instant, attached: &BTreeSet<u32>, bound: &BTreeSet<u32>) {
        if new > 0 {
            self.so_far.links += new;
            self.so_far.last = before.elapsed();
            self.so_far.longest = self.so_far.longest.max(self.so_far.last);
        }
        for ifindex in attached.difference(bound) {
            self.unknown.entry(*ifindex).or_insert(before);
        }
    }

    /// Whose link is whose was looked up anew: pods are `bound` to some, and of `unknown` ones nobody knows.
    pub(crate) fn looked_up(&mut self, bound: &BTreeSet<u32>, unknown: &BTreeSet<u32>) {
        for ifindex in bound {
            let Some(since) = self.unknown.remove(ifindex) else { continue };
            self.so_far.known += 1;
            self.so_far.known_last = since.elapsed();
            self.so_far.known_longest = self.so_far.known_longest.max(self.so_far.known_last);
        }
        self.unknown.retain(|ifindex, _| unknown.contains(ifindex));
        for ifindex in unknown {
            self.unknown.entry(*ifindex).or_insert_with(Instant::now);
        }
    }

    /// As it is now.
    pub(crate) fn window(&self) -> Window {
        let longest = self.unknown.values().map(Instant::elapsed).max().unwrap_or_default();
        Window { unknown: self.unknown.len() as u64, unknown_longest: longest, ..self.so_far }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_waits_from_the_last_look_without_it_until_its_pod_is_known() {
        let mut measure = Measure::default();
        measure.looked_up(&[1].into(), &[].into());
        assert_eq!(measure.window(), Window::default(), "a pod that is known at once waited for nothing");
        let before = Instant::now() - Duration::from_secs(5);
        measure.attached(1, before, &[1, 2].into(), &[1].into());
        measure.looked_up(&[1].into(), &[2, 3].into());
        let window = measure.window();
        assert_eq!((window.links, window.known, window.unknown), (1, 0, 2));
        assert!(
            window.last >= Duration::from_secs(5) && window.unknown_longest >= Duration::from_secs(5),
            "{window:?}"
        );
        // The third link goes, the second one's pod is known now.
        measure.looked_up(&[1, 2].into(), &[].into());
        let window = measure.window();
        assert_eq!((window.known, window.unknown, window.unknown_longest), (1, 0, Duration::ZERO));
        assert!(window.known_last >= Duration::from_secs(5) && window.known_longest == window.known_last, "{window:?}");
    }
}
