//! Events, which are samples, and counters, which are the truth.

use crate::Error;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use flow::Direction;
use std::collections::BTreeMap;
use verdict::{
    Reason,
    abi::{self, CounterRecord, Event, EventRecord, maps},
};

/// One counter: of every reason that makes events, events + suppressed + lost = packets (law 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
    pub events: u64,
    pub suppressed: u64,
    pub lost: u64,
}

impl Counter {
    /// One counter, summed over the CPUs.
    pub(crate) fn read(map: &PerCpuArray<MapData, CounterRecord>, index: u32) -> Result<Self, Error> {
        let values = map.get(&index, 0).map_err(Error::table("read", maps::COUNTERS))?;
        let mut counter = Self::default();
        values.iter().for_each(|record| counter.add(record));
        Ok(counter)
    }

    fn add(&mut self, record: &CounterRecord) {
        let [packets, bytes, events, suppressed, lost] = *record;
        self.packets += packets;
        self.bytes += bytes;
        self.events += events;
        self.suppressed += suppressed;
        self.lost += lost;
    }
}

/// All counters at one moment, summed over the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By reason, direction and whether the packet was dropped.
    pub verdicts: BTreeMap<(Reason, Direction, bool), Counter>,
    /// Entries whose last counters the kernel reported itself.
    pub ended: Counter,
}

impl Counters {
    pub(crate) fn read(map: &PerCpuArray<MapData, CounterRecord>) -> Result<Self, Error> {
        let mut counters = Self::default();
        let sum = |index: u32| Counter::read(map, index);
        for reason in Reason::ALL {
            for direction in [Direction::Inbound, Direction::Outbound] {
                for dropped in [false, true] {
                    let counter = sum(abi::counter_index(*reason, direction, dropped))?;
                    if counter != Counter::default() {
                        counters.verdicts.insert((*reason, direction, dropped), counter);
                    }
                }
            }
        }
        counters.ended = sum(abi::COUNTER_ENDED)?;
        Ok(counters)
    }

    /// Packets of a reason, both directions, dropped or not.
    pub fn packets(&self, reason: Reason) -> u64 {
        self.verdicts.iter().filter(|((of, ..), _)| *of == reason).map(|(_, counter)| counter.packets).sum()
    }

    /// Packets that were dropped.
    pub fn dropped(&self) -> u64 {
        self.verdicts.iter().filter(|((.., dropped), _)| *dropped).map(|(_, counter)| counter.packets).sum()
    }

    /// Events that were lost on their way.
    pub fn lost(&self) -> u64 {
        self.verdicts.values().map(|counter| counter.lost).sum::<u64>() + self.ended.lost
    }
}

/// Reads what is in the ring, at most `limit` events. What names nothing is counted, not guessed at.
pub(crate) fn drain(ring: &mut RingBuf<MapData>, limit: usize, unreadable: &mut u64) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < limit {
        let Some(item) = ring.next() else { break };
        match words(&item).as_ref().and_then(Event::decode) {
            Some(event) => events.push(event),
            None => *unreadable += 1,
        }
    }
    events
}

fn words(bytes: &[u8]) -> Option<EventRecord> {
    let mut record: EventRecord = [0; size_of::<EventRecord>() / 8];
    if bytes.len() < size_of::<EventRecord>() {
        return None;
    }
    let (chunks, _) = bytes.as_chunks::<8>();
    for (word, chunk) in record.iter_mut().zip(chunks) {
        *word = u64::from_ne_bytes(*chunk);
    }
    Some(record)
}
