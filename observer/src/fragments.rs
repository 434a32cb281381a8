//! Which ports a later fragment belongs to: those of its datagram's first fragment, while it is remembered.

use flow::{FlowKey, FragmentKey};
use model::record::UnixNanos;
use std::collections::{HashMap, VecDeque};

/// A datagram is put together within 30 seconds or never (Linux's `ipfrag_time`).
const LIFETIME: i64 = 30 * 1_000_000_000;

/// First fragments, no more than `most` of them; the oldest is forgotten first.
pub(crate) struct Fragments {
    most: usize,
    keys: HashMap<FragmentKey, (UnixNanos, FlowKey)>,
    order: VecDeque<FragmentKey>,
}

impl Fragments {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, keys: HashMap::new(), order: VecDeque::new() }
    }

    /// Remembers a first fragment.
    pub(crate) fn first(&mut self, at: UnixNanos, datagram: FragmentKey, key: FlowKey) {
        if self.keys.insert(datagram, (at, key)).is_none() {
            self.order.push_back(datagram);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.keys.remove(&oldest);
            }
        }
    }

    /// The flow of a later fragment.
    pub(crate) fn later(&self, at: UnixNanos, datagram: &FragmentKey) -> Option<FlowKey> {
        let (since, key) = self.keys.get(datagram)?;
        (at.saturating_sub(*since) <= LIFETIME).then_some(*key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::Address;

    fn datagram(id: u32) -> FragmentKey {
        FragmentKey { source: Address::v4([1; 4]), destination: Address::v4([2; 4]), id, protocol: flow::UDP }
    }

    #[test]
    fn a_first_fragment_is_remembered_for_a_while_and_the_oldest_forgotten_first() {
        let mut fragments = Fragments::new(2);
        let key = |port| FlowKey { source_port: port, ..FlowKey::default() };
        fragments.first(0, datagram(1), key(1));
        fragments.first(0, datagram(2), key(2));
        assert_eq!(fragments.later(LIFETIME, &datagram(1)), Some(key(1)));
        assert_eq!(fragments.later(LIFETIME + 1, &datagram(1)), None);
        fragments.first(0, datagram(3), key(3));
        assert_eq!(fragments.later(0, &datagram(1)), None);
        assert_eq!(fragments.later(0, &datagram(3)), Some(key(3)));
    }
}
