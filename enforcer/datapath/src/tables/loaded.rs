//! The loaded tables, asked entry by entry: what the kernel would find, not what was meant to be written.

use super::further_key;
use crate::{Error, Tables};
use aya::maps::{MapError, lpm_trie::Key};
use compile::Prefix;
use flow::{Address, FlowKey};
use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    ops::Deref,
};
use verdict::{
    Asked, Further, Limits, Removed, Share, Sockets, Standing, Stored, Verdict,
    abi::{ConnectionKey, ConnectionRecord, FragmentRecord, GenerationRecord, PORT_PREFIX, RuleKey, maps, port_key},
    judge,
};

impl Tables {
    /// What the loaded policy says of an opening, by the same [`judge`] that the kernel program runs, with the
    /// endpoint's word that the answer belongs to. It takes a handful of system calls.
    pub fn ask(&self, asked: &Asked) -> Result<(Verdict, u64), Error> {
        let loaded = Loaded { tables: self, failed: RefCell::default() };
        let mut word = 0;
        let verdict = judge(&loaded, asked, &mut word).verdict();
        match loaded.failed.into_inner() {
            Some(error) => Err(error),
            None => Ok((verdict, word)),
        }
    }
}

/// Policy's tables alone: there are no connections, and nothing is stored.
struct Loaded<'t> {
    tables: &'t Tables,
    failed: RefCell<Option<Error>>,
}

/// There is none.
struct NoEntry(Infallible);

impl Deref for NoEntry {
    type Target = [Cell<u64>; 9];

    fn deref(&self) -> &Self::Target {
        match self.0 {}
    }
}

impl Loaded<'_> {
    /// What a look-up found; a failure, other than finding nothing, is kept.
    fn found<T>(&self, table: &'static str, looked: Result<T, MapError>) -> Option<T> {
        match looked {
            Ok(value) => Some(value),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                self.failed.borrow_mut().get_or_insert_with(|| Error::table("read", table)(error));
                None
            }
        }
    }
}

impl verdict::Tables for Loaded<'_> {
    type Entry = NoEntry;

    fn word(&self, endpoint: u32) -> u64 {
        self.found(maps::ENDPOINTS, self.tables.endpoints.get(&endpoint, 0)).map_or(0, |record| record[0])
    }

    fn own_address(&self, endpoint: u32, index: usize) -> Address {
        let record = self.found(maps::ENDPOINTS, self.tables.endpoints.get(&endpoint, 0));
        let word = |at: usize| record.and_then(|record| record.get(at).copied()).unwrap_or_default();
        Address([word(2 + index * 2), word(3 + index * 2)])
    }

    fn further(&self, endpoint: u32, address: Address) -> Further {
        match self.found(maps::FURTHER, self.tables.further.get(&further_key(endpoint, &Prefix::host(address)), 0)) {
            Some(_) => Further::Given,
            None => Further::No,
        }
    }

    fn generation(&self, index: u32) -> Option<GenerationRecord> {
        self.found(maps::GENERATIONS, self.tables.generations.get(&index, 0))
    }

    fn identity(&self, address: Address) -> u32 {
        let key = Key::new(128, address.octets());
        self.found(maps::IDENTITIES, self.tables.identities.get(&key, 0)).unwrap_or_default()
    }

    fn peer(&self, address: Address) -> u32 {
        self.found(maps::PEERS, self.tables.peers.get(&address.0, 0)).unwrap_or_default()
    }

    fn port_class(&self, slot: u32, protocol: u8, port: u16) -> Option<u32> {
        let key = Key::new(PORT_PREFIX, port_key(slot, protocol, port));
        self.found(maps::PORT_CLASSES, self.tables.port_classes.get(&key, 0))
    }

    fn rule(&self, key: &RuleKey) -> Option<u32> {
        self.found(maps::RULES, self.tables.rules.get(key, 0))
    }

    fn connection(&self, _: &ConnectionKey) -> Option<NoEntry> {
        None
    }

    fn insert(&self, _: &ConnectionKey, _: &ConnectionRecord) -> Stored {
        Stored::Full
    }

    fn remove(&self, _: &ConnectionKey) -> Removed {
        Removed::Before
    }

    fn ended(&self, _: &ConnectionKey, _: &[Cell<u64>; 9]) {}

    fn add(&self, _: &Cell<u64>, _: u64) {}

    fn limits(&self) -> Limits {
        Limits { half_open: 0, established: 0, tombstones: 0 }
    }

    fn standing(&self) -> Standing {
        Standing::Revoked
    }

    fn in_use(&self, endpoint: u32, share: Share) -> u64 {
        self.tables.in_use(endpoint, share).unwrap_or_default()
    }

    fn take(&self, _: u32, _: Share) {}

    fn release(&self, _: u32, _: Share) {}

    fn fragment(&self, _: u32) -> FragmentRecord {
        [0; 4]
    }

    fn remember(&self, _: u32, _: &FragmentRecord) {}

    fn rate(&self, _: u32) -> [u64; 2] {
        [0; 2]
    }

    fn set_rate(&self, _: u32, _: [u64; 2]) {}

    fn sockets(&self, _: u32, _: &FlowKey) -> Sockets {
        Sockets::None
    }
}
