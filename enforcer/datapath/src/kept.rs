//! What an agent must know of the one before it: which pod has which ordinal, what of each connection was told,
//! whose turn it is, and its times. Without a place for pins all of it lives as long as the process.

use crate::{Counted, Error, Place, pins::Pins};
use aya::maps::{Array, HashMap, MapData, MapError};
use flow::Address;
use std::{collections::BTreeMap, sync::Arc};
use verdict::{
    Mode,
    abi::{ConnectionKey, MAX_ENDPOINTS, Nanos, OWN_ADDRESSES},
};

/// Words of a UID; a longer one is not kept, so that its pod gets a new ordinal.
const UID_WORDS: usize = 16;
/// `[mode, length of the UID, UID, own addresses]`; length 0: nobody has this ordinal.
const POD_WORDS: usize = 2 + UID_WORDS + 2 * OWN_ADDRESSES;
type PodRecord = [u64; POD_WORDS];
const PODS: &str = "pods";

/// Which pod has which ordinal: connections are kept under it.
pub(crate) struct Pods(Option<Array<MapData, PodRecord>>);

impl Pods {
    pub(crate) fn open(pins: Option<&Pins>) -> Result<Self, Error> {
        Ok(Self(pins.map(|pins| pins.array(PODS, MAX_ENDPOINTS)).transpose()?))
    }

    /// The endpoints of the agent before.
    pub(crate) fn all(&self) -> Result<BTreeMap<u32, Place>, Error> {
        let mut places = BTreeMap::new();
        let Some(pods) = &self.0 else { return Ok(places) };
        for ordinal in 0..MAX_ENDPOINTS {
            let record = pods.get(&ordinal, 0).map_err(Error::table("read", PODS))?;
            if let Some((uid, addresses, mode)) = read(&record) {
                places.insert(ordinal, Place::adopted(uid, addresses, mode));
            }
        }
        Ok(places)
    }

    /// Keeps, or with `None` forgets, who has an ordinal.
    pub(crate) fn set(&mut self, ordinal: u32, place: Option<&Place>) -> Result<(), Error> {
        let Some(pods) = &mut self.0 else { return Ok(()) };
        let record = place.map_or([0; POD_WORDS], written);
        pods.set(ordinal, record, 0).map_err(Error::table("write", PODS))
    }
}

fn written(place: &Place) -> PodRecord {
    let mut record = [0; POD_WORDS];
    let uid = place.uid.as_bytes();
    if uid.len() > UID_WORDS * 8 {
        return record;
    }
    record[0] = place.mode as u64;
    record[1] = uid.len() as u64;
    for (word, bytes) in record[2..].iter_mut().zip(uid.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    let words = place.addresses.iter().flat_map(|address| address.0);
    record[2 + UID_WORDS..].iter_mut().zip(words).for_each(|(to, word)| *to = word);
    record
}

fn read(record: &PodRecord) -> Option<(Arc<str>, [Address; OWN_ADDRESSES], Mode)> {
    let length = usize::try_from(record[1]).ok().filter(|length| (1..=UID_WORDS * 8).contains(length))?;
    let bytes: Vec<u8> = record[2..2 + UID_WORDS].iter().flat_map(|word| word.to_ne_bytes()).take(length).collect();
    let mut addresses = [Address::default(); OWN_ADDRESSES];
    let (words, _) = record[2 + UID_WORDS..].as_chunks::<2>();
    addresses.iter_mut().zip(words).for_each(|(to, words)| *to = Address(*words));
    Some((std::str::from_utf8(&bytes).ok()?.into(), addresses, Mode::from_number(record[0])))
}

/// What of an entry was told, and how it looked then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ToldOnce {
    pub(crate) counted: Counted,
    pub(crate) last_seen: Nanos,
    pub(crate) state: u64,
}

/// An entry's key and when it began.
pub(crate) type EntryId = (ConnectionKey, Nanos);
type ToldKey = [u64; 4];
type ToldRecord = [u64; 6];
const TOLD: &str = "told";

/// What of each entry was told: the next agent goes on from there, and counts nothing twice.
pub(crate) struct Told(Option<HashMap<MapData, ToldKey, ToldRecord>>);

impl Told {
    pub(crate) fn open(pins: Option<&Pins>, entries: u32) -> Result<Self, Error> {
        Ok(Self(pins.map(|pins| pins.hash(TOLD, entries)).transpose()?))
    }

    pub(crate) fn all(&self) -> Result<Vec<(EntryId, ToldOnce)>, Error> {
        let Some(told) = &self.0 else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for entry in told.iter() {
            let ([a, b, c, started], [packets_in, bytes_in, packets_out, bytes_out, last_seen, state]) =
                entry.map_err(Error::table("read", TOLD))?;
            let counted = Counted { packets_in, bytes_in, packets_out, bytes_out };
            all.push((([a, b, c], started), ToldOnce { counted, last_seen, state }));
        }
        Ok(all)
    }

    pub(crate) fn set(&mut self, id: &EntryId, once: &ToldOnce) -> Result<(), Error> {
        let Some(told) = &mut self.0 else { return Ok(()) };
        let Counted { packets_in, bytes_in, packets_out, bytes_out } = once.counted;
        let record = [packets_in, bytes_in, packets_out, bytes_out, once.last_seen, once.state];
        told.insert(key(id), record, 0).map_err(Error::table("write", TOLD))
    }

    pub(crate) fn forget(&mut self, id: &EntryId) -> Result<(), Error> {
        let Some(told) = &mut self.0 else { return Ok(()) };
        match told.remove(&key(id)) {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other.map_err(Error::table("write", TOLD)),
        }
    }
}

fn key(([a, b, c], started): &EntryId) -> ToldKey {
    [*a, *b, *c, *started]
}

/// What agents hand on, a word each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Which agent's turn it is.
    Turn = 0,
    /// Unix time of the kernel clock's zero, in nanoseconds, as the first agent saw it: all slices of a flow
    /// agree on when it began.
    ClockZero = 1,
    /// Unix time, in nanoseconds, at which an agent last looked.
    LastLook = 2,
    /// Lost events that the log knows of.
    LostTold = 3,
    /// Events read.
    EventsRead = 4,
}

const RECORD: &str = "record";
const WORDS: usize = 8;

/// What agents hand on. Each takes a turn; the one before notices and lets go.
pub(crate) struct Record {
    pinned: Option<Array<MapData, u64>>,
    here: [u64; WORDS],
    turn: u64,
}

/// Whether an agent still has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It does, or is still to take one.
    Ours,
    /// Another agent has taken over what is pinned.
    Passed,
}

impl Record {
    pub(crate) fn open(pins: Option<&Pins>) -> Result<Self, Error> {
        let pinned = pins.map(|pins| pins.array(RECORD, WORDS as u32)).transpose()?;
        Ok(Self { pinned, here: [0; WORDS], turn: 0 })
    }

    pub(crate) fn get(&self, word: Word) -> Result<u64, Error> {
        match &self.pinned {
            Some(pinned) => pinned.get(&(word as u32), 0).map_err(Error::table("read", RECORD)),
            None => Ok(self.here[word as usize]),
        }
    }

    pub(crate) fn set(&mut self, word: Word, value: u64) -> Result<(), Error> {
        match &mut self.pinned {
            Some(pinned) => pinned.set(word as u32, value, 0).map_err(Error::table("write", RECORD)),
            None => {
                self.here[word as usize] = value;
                Ok(())
            }
        }
    }

    pub(crate) fn take_turn(&mut self) -> Result<(), Error> {
        self.turn = self.get(Word::Turn)? + 1;
        self.set(Word::Turn, self.turn)
    }

    pub(crate) fn turn(&self) -> Result<Turn, Error> {
        let passed = self.turn != 0 && self.get(Word::Turn)? != self.turn;
        Ok(if passed { Turn::Passed } else { Turn::Ours })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_read_as_it_was_written() {
        let addresses = [Address::v4([10, 0, 0, 1]), Address::v6([7; 16]), Address::default(), Address::default()];
        for uid in ["u", "0f3a2c1e-9f43-4a86-b5d0-5a1a0c8a8f11", &"x".repeat(UID_WORDS * 8)] {
            let place = Place::adopted(uid.into(), addresses, Mode::Enforce);
            assert_eq!(read(&written(&place)), Some((uid.into(), addresses, Mode::Enforce)));
        }
        let long = Place::adopted("x".repeat(UID_WORDS * 8 + 1).into(), addresses, Mode::Enforce);
        assert_eq!(read(&written(&long)), None);
    }
}
