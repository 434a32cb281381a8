//! Sweeping the connection table: what entries counted since the last time, and which are over.
//!
//! Always holds (law 7): for each entry, the differences handed out add up to what it counted, its
//! last ones included, for an entry is taken out and read in one step. What goes inside the kernel
//! comes as an event; what went without one is reported as lost.

use crate::{
    Error, Tables,
    kept::{EntryId, Told, ToldOnce},
    load::take_map,
    pins::Pins,
    recount::{Count, Of, Recount, SHARES},
    system,
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, IterableMap, Map, MapData, MapError},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap as Known, HashSet},
    os::fd::AsFd,
};
use verdict::{
    Phase, State,
    abi::{ConnectionKey, ConnectionRecord, Event, Nanos, SWEPT_BY_AGENT, connection_parts, maps, word},
    lives,
};

/// BPF_NOEXIST: an entry that the kernel made meanwhile stays.
const NO_EXIST: u64 = 1;

/// Packets and bytes of one entry between two looks; "in" is towards the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counted {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
}

impl Counted {
    /// All an entry has counted.
    pub fn of(record: &ConnectionRecord) -> Self {
        Self {
            packets_in: record[word::PACKETS_IN],
            bytes_in: record[word::BYTES_IN],
            packets_out: record[word::PACKETS_OUT],
            bytes_out: record[word::BYTES_OUT],
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            packets_in: self.packets_in.saturating_sub(before.packets_in),
            bytes_in: self.bytes_in.saturating_sub(before.bytes_in),
            packets_out: self.packets_out.saturating_sub(before.packets_out),
            bytes_out: self.bytes_out.saturating_sub(before.bytes_out),
        }
    }

    /// Packets both ways.
    pub fn packets(&self) -> u64 {
        self.packets_in + self.packets_out
    }
}

/// Why an entry is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing for its lifetime.
    Expired,
    /// Its endpoint is gone.
    EndpointGone,
    /// The agent stops.
    Stopped,
    /// Replaced or removed inside the kernel.
    InKernel,
}

/// Whether an entry goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It does.
    No,
    /// It is over; these were its last counters.
    Yes(Why),
}

/// What one entry did since the last look.
#[derive(Clone, Copy, Debug)]
pub struct SweptEntry {
    /// Its key.
    pub key: ConnectionKey,
    /// Its words now.
    pub record: ConnectionRecord,
    /// What it counted since the last look.
    pub counted: Counted,
    /// Last packet before this look's ones; 0: this is the first look.
    pub seen_before: Nanos,
    /// Its state word at the last look; 0: this is the first.
    pub state_before: u64,
    /// Whether it goes on.
    pub ended: Ended,
}

/// The connection table and what of it was handed out.
pub struct Sweep {
    connections: HashMap<MapData, ConnectionKey, ConnectionRecord>,
    swept: Array<MapData, Nanos>,
    known: Known<EntryId, Seen>,
    told: Told,
    round: u64,
    standing: Vec<(ConnectionKey, ConnectionRecord)>,
    /// Entries that went without a word: their last counters are lost.
    pub lost_entries: u64,
    /// Entries that went on at the last look, by endpoint and share.
    there: Known<Of, Count>,
    recount: Recount,
    /// Shares that had lost count and were corrected.
    pub corrected_shares: u64,
}

#[derive(Clone, Copy)]
struct Seen {
    once: ToldOnce,
    told: Nanos,
    round: u64,
}

impl Sweep {
    pub(crate) fn of(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Result<Self, Error> {
        let connections: HashMap<MapData, _, _> = take_map(ebpf, maps::CONNECTIONS)?;
        let entries = IterableMap::map(&connections).info().map_err(Error::table("ask about", maps::CONNECTIONS))?;
        let told = Told::open(pins, entries.max_entries())?;
        Ok(Self {
            connections,
            swept: take_map(ebpf, maps::SWEPT)?,
            known: Known::new(),
            told,
            round: 0,
            standing: Vec::new(),
            lost_entries: 0,
            there: Known::new(),
            recount: Recount::default(),
            corrected_shares: 0,
        })
    }

    /// Goes on from what an earlier agent told: the ordinals that entries have.
    pub(crate) fn adopt(&mut self) -> Result<BTreeSet<u32>, Error> {
        for (id, once) in self.told.all()? {
            self.known.insert(id, Seen { once, told: once.last_seen, round: self.round });
        }
        Ok(self.all()?.keys().map(|key| connection_parts(key).endpoint).collect())
    }

    /// The entry under a key now.
    pub fn entry(&self, key: &ConnectionKey) -> Result<Option<ConnectionRecord>, Error> {
        match self.connections.get(key, 0) {
            Ok(record) => Ok(Some(record)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(Error::table("read", maps::CONNECTIONS)(e)),
        }
    }

    /// Every entry as it is now.
    pub fn all(&self) -> Result<BTreeMap<ConnectionKey, ConnectionRecord>, Error> {
        self.connections.iter().collect::<Result<_, _>>().map_err(Error::table("read", maps::CONNECTIONS))
    }

    /// The entries that went on at the last look.
    pub fn standing(&self) -> &[(ConnectionKey, ConnectionRecord)] {
        &self.standing
    }

    /// Looks at every entry: what it counted since it was told of last. What goes on as it did is told of
    /// every `due` nanoseconds. Takes out what is over at `now`.
    pub fn sweep(&mut self, tables: &mut Tables, now: Nanos, due: Nanos) -> Result<Vec<SweptEntry>, Error> {
        let swept = self.look(tables, now, due, |tables, key, record| over(tables, key, record, now))?;
        self.note(now)?;
        if self.recount.is_due(now) {
            self.recount(tables, now)?;
        }
        Ok(swept)
    }

    /// Notes that an agent sweeps: until [`verdict::AGENT_AWAY`] has passed, the kernel leaves expiry to it.
    pub fn note(&mut self, now: Nanos) -> Result<(), Error> {
        self.swept.set(SWEPT_BY_AGENT, now, 0).map_err(Error::table("write", maps::SWEPT))
    }

    /// Holds each endpoint's shares against the entries of the last look.
    fn recount(&mut self, tables: &mut Tables, now: Nanos) -> Result<(), Error> {
        let mut found = Vec::new();
        for (ordinal, share) in tables.places().keys().flat_map(|ordinal| SHARES.map(|share| (*ordinal, share))) {
            let of = (ordinal, share as u8);
            let there = self.there.get(&of).copied().unwrap_or_default();
            found.push((of, Count { counted: tables.in_use(ordinal, share)?, ..there }));
        }
        for ((ordinal, number), many) in self.recount.compare(now, found.into_iter()) {
            for share in SHARES.into_iter().filter(|share| *share as u8 == number) {
                tracing::warn!(ordinal, ?share, by = many.cast_signed(), "a share had lost count and was corrected");
                tables.give_back(ordinal, share, many)?;
                self.corrected_shares += 1;
            }
        }
        Ok(())
    }

    /// Takes out one entry, as if it had never been there; nothing happens where it is gone.
    pub fn take_out(&mut self, tables: &mut Tables, key: &ConnectionKey) -> Result<Option<SweptEntry>, Error> {
        let taken = self.take(key, Why::Stopped, |_| Ended::Yes(Why::Stopped))?;
        if let Some(entry) = &taken {
            tables.give_back(connection_parts(key).endpoint, State(entry.record[word::STATE]).share(), 1)?;
        }
        Ok(taken)
    }

    /// Takes out every entry: the agent stops, and hooks are detached.
    pub fn drain(&mut self, tables: &mut Tables) -> Result<Vec<SweptEntry>, Error> {
        self.look(tables, Nanos::MAX, 0, |_, _, _| Ended::Yes(Why::Stopped))
    }

    /// The last counters of an entry that went inside the kernel, as its event says.
    pub fn ended(&mut self, event: &Event, key: ConnectionKey) -> Result<SweptEntry, Error> {
        let id = (key, event.connection[word::STARTED]);
        let seen = self.known.remove(&id);
        self.told.forget(&id)?;
        Ok(swept(key, event.connection, seen, Ended::Yes(Why::InKernel)))
    }

    fn look(
        &mut self,
        tables: &mut Tables,
        now: Nanos,
        due: Nanos,
        over: impl Fn(&Tables, &ConnectionKey, &ConnectionRecord) -> Ended,
    ) -> Result<Vec<SweptEntry>, Error> {
        self.round += 1;
        let mut found = Vec::new();
        // A table that changes meanwhile may show a key twice, or begin again: each key once, and
        // never more steps than a full table has.
        let mut looked_at = HashSet::new();
        for entry in self.connections.iter().take(1 << 21) {
            match entry {
                Ok((key, record)) if looked_at.insert(key) => found.push((key, record)),
                Ok(_) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(Error::table("read", maps::CONNECTIONS)(e)),
            }
        }
        let mut swept = Vec::new();
        self.standing.clear();
        self.there.clear();
        for (key, record) in found {
            let fate = over(tables, &key, &record);
            if fate == Ended::No {
                let share = State(record[word::STATE]).share() as u8;
                let count = self.there.entry((connection_parts(&key).endpoint, share)).or_default();
                count.add(&key, record[word::STARTED]);
            }
            match fate {
                Ended::No if opening(&record, now) => {}
                Ended::No => swept.extend(self.goes_on(key, record, now, due)?),
                Ended::Yes(why) => {
                    let fate = |record: &ConnectionRecord| over(tables, &key, record);
                    if let Some(entry) = self.take(&key, why, fate)? {
                        let share = State(entry.record[word::STATE]).share();
                        tables.give_back(connection_parts(&key).endpoint, share, 1)?;
                        swept.push(entry);
                    }
                }
            }
        }
        self.forget()?;
        Ok(swept)
    }

    fn goes_on(
        &mut self,
        key: ConnectionKey,
        record: ConnectionRecord,
        now: Nanos,
        due: Nanos,
    ) -> Result<Option<SweptEntry>, Error> {
        self.standing.push((key, record));
        let id = (key, record[word::STARTED]);
        if let Some(before) = self.known.get_mut(&id) {
            before.round = self.round;
            if before.once.state == record[word::STATE] && now.saturating_sub(before.told) < due {
                return Ok(None);
            }
        }
        let once =
            ToldOnce { counted: Counted::of(&record), last_seen: record[word::LAST_SEEN], state: record[word::STATE] };
        let before = self.known.insert(id, Seen { once, told: now, round: self.round });
        if before.is_none_or(|before| before.once != once) {
            self.told.set(&id, &once)?;
        }
        let entry = swept(key, record, before, Ended::No);
        let news = entry.counted != Counted::default() || entry.state_before != record[word::STATE];
        Ok(news.then_some(entry))
    }

    /// Takes an entry out, unless packets came meanwhile that keep it.
    fn take(
        &mut self,
        key: &ConnectionKey,
        why: Why,
        over: impl Fn(&ConnectionRecord) -> Ended,
    ) -> Result<Option<SweptEntry>, Error> {
        let fd = IterableMap::map(&self.connections).fd();
        let taken = system::take::<3, 9>(fd.as_fd(), key)
            .map_err(|source| Error::System { doing: "take an entry out of the connection table", source })?;
        let Some(record) = taken else { return Ok(None) };
        if over(&record) == Ended::No && self.connections.insert(key, record, NO_EXIST).is_ok() {
            return Ok(None);
        }
        let id = (*key, record[word::STARTED]);
        let seen = self.known.remove(&id);
        self.told.forget(&id)?;
        Ok(Some(swept(*key, record, seen, Ended::Yes(why))))
    }

    /// Forgets entries that were not met twice running and of which no event came.
    fn forget(&mut self) -> Result<(), Error> {
        let round = self.round;
        for (id, _) in self.known.extract_if(|_, seen| seen.round + 2 <= round) {
            self.lost_entries += 1;
            self.told.forget(&id)?;
        }
        Ok(())
    }
}

fn swept(key: ConnectionKey, record: ConnectionRecord, seen: Option<Seen>, ended: Ended) -> SweptEntry {
    let all = Counted::of(&record);
    let counted = seen.map_or(all, |seen| all.since(&seen.once.counted));
    SweptEntry {
        key,
        record,
        counted,
        seen_before: seen.map_or(0, |seen| seen.once.last_seen),
        state_before: seen.map_or(0, |seen| seen.once.state),
        ended,
    }
}

/// Whether an entry is so young that its answer may still come: it is told a look later, whole.
fn opening(record: &ConnectionRecord, now: Nanos) -> bool {
    const YOUNG: Nanos = 1_000_000_000;
    matches!(State(record[word::STATE]).phase(), Phase::HalfOpen) && now.saturating_sub(record[word::STARTED]) < YOUNG
}

/// Whether an entry is over.
fn over(tables: &Tables, key: &ConnectionKey, record: &ConnectionRecord, now: Nanos) -> Ended {
    let parts = connection_parts(key);
    if !tables.places().contains_key(&parts.endpoint) {
        return Ended::Yes(Why::EndpointGone);
    }
    let phase = State(record[word::STATE]).phase();
    if lives(phase, parts.protocol, record[word::LAST_SEEN], now) { Ended::No } else { Ended::Yes(Why::Expired) }
}

/// The data behind a map of any type.
pub(crate) fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LpmTrie(data) => Some(data),
        _ => None,
    }
}
