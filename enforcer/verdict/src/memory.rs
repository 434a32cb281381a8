//! [`Tables`] in memory: for the simulator, the agent's idle entries, and the tests that hold the
//! kernel program against `decide` (law 4). It stores what it is told and nothing else.

extern crate std;

use crate::{
    Claim, Expiring, Further, Limits, Removed, Share, Sockets, Standing, Stored, Tables,
    abi::{
        ConnectionKey, ConnectionRecord, EndpointRecord, FragmentRecord, GenerationRecord, Nanos, OWN_ADDRESSES,
        PORT_PREFIX, RuleKey, port_key,
    },
};
use core::cell::{Cell, RefCell};
use flow::{Address, FlowKey};
use std::{collections::HashMap, rc::Rc, vec::Vec};

/// An entry that the table and a running decision share.
pub type Entry = Rc<[Cell<u64>; 9]>;

/// All tables of one node, and the sockets' answer.
#[derive(Debug)]
pub struct Memory {
    /// By endpoint ordinal.
    pub endpoints: RefCell<HashMap<u32, EndpointRecord>>,
    /// By endpoint ordinal: prefixes of addresses given to it beside its own (length of 128, masked address).
    pub further: RefCell<HashMap<u32, Vec<(u8, [u8; 16])>>>,
    /// By generation index.
    pub generations: RefCell<HashMap<u32, GenerationRecord>>,
    /// By prefix length (of 128) and masked address.
    pub identities: RefCell<HashMap<(u8, [u8; 16]), u32>>,
    /// Who opens from an address: see [`crate::abi::maps::PEERS`].
    pub peers: RefCell<HashMap<Address, u32>>,
    /// By prefix length and masked key.
    pub port_classes: RefCell<HashMap<(u32, [u8; 8]), u32>>,
    /// Rule ids.
    pub rules: RefCell<HashMap<RuleKey, u32>>,
    /// The connection table.
    pub connections: RefCell<HashMap<ConnectionKey, Entry>>,
    /// Entries the connection table holds at most.
    pub capacity: Cell<usize>,
    /// Entries in each share, by endpoint.
    pub shares: RefCell<HashMap<u32, [u64; 3]>>,
    /// When an agent last swept.
    pub swept: Cell<Nanos>,
    /// When entries were last expired for want of room.
    pub expired: Cell<Nanos>,
    /// The limits of the shares.
    pub limits: Cell<Limits>,
    /// What becomes of connections that policy no longer allows.
    pub standing: Cell<Standing>,
    /// First fragments, by slot.
    pub fragments: RefCell<HashMap<u32, FragmentRecord>>,
    /// Neighbour discovery buckets.
    pub rates: RefCell<HashMap<u32, [u64; 2]>>,
    /// What the pod's sockets answer.
    pub sockets: Cell<Sockets>,
    /// Entries that ended inside a decision: key and last words.
    pub ended: RefCell<Vec<(ConnectionKey, ConnectionRecord)>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            endpoints: RefCell::default(),
            further: RefCell::default(),
            generations: RefCell::default(),
            identities: RefCell::default(),
            peers: RefCell::default(),
            port_classes: RefCell::default(),
            rules: RefCell::default(),
            connections: RefCell::default(),
            capacity: Cell::new(usize::MAX),
            shares: RefCell::default(),
            swept: Cell::default(),
            expired: Cell::default(),
            limits: Cell::new(Limits { half_open: 4096, established: 65536, tombstones: 4096 }),
            standing: Cell::default(),
            fragments: RefCell::default(),
            rates: RefCell::default(),
            sockets: Cell::new(Sockets::None),
            ended: RefCell::default(),
        }
    }
}

/// The first `bits` of the octets, the rest zero.
pub fn masked<const N: usize>(mut octets: [u8; N], bits: u32) -> [u8; N] {
    for (index, octet) in octets.iter_mut().enumerate() {
        let keep = bits.saturating_sub(index as u32 * 8).min(8);
        *octet &= (0xff00u16 >> keep) as u8;
    }
    octets
}

impl Memory {
    /// Puts an address prefix (length of 128) under an identity.
    pub fn put_identity(&self, address: Address, prefix: u8, identity: u32) {
        self.identities.borrow_mut().insert((prefix, masked(address.octets(), prefix.into())), identity);
    }

    /// Gives an endpoint a prefix (length of 128) beside its own addresses.
    pub fn give(&self, endpoint: u32, address: Address, length: u8) {
        let first = masked(address.octets(), length.into());
        self.further.borrow_mut().entry(endpoint).or_default().push((length, first));
    }

    /// Puts a port prefix of a slot under a class.
    pub fn put_port_class(&self, key: [u8; 8], prefix: u32, class: u32) {
        self.port_classes.borrow_mut().insert((prefix, masked(key, prefix)), class);
    }

    /// Stores the word of an endpoint: a publish.
    pub fn publish(&self, endpoint: u32, word: u64) {
        self.endpoints.borrow_mut().entry(endpoint).or_default()[0] = word;
    }
}

impl Tables for Memory {
    type Entry = Entry;

    fn word(&self, endpoint: u32) -> u64 {
        self.endpoints.borrow().get(&endpoint).map_or(0, |record| record[0])
    }

    fn own_address(&self, endpoint: u32, index: usize) -> Address {
        debug_assert!(index <= OWN_ADDRESSES);
        let at = 2 + index * 2;
        self.endpoints.borrow().get(&endpoint).map_or(Address::default(), |r| Address([r[at], r[at + 1]]))
    }

    fn further(&self, endpoint: u32, address: Address) -> Further {
        let further = self.further.borrow();
        let mut prefixes = further.get(&endpoint).into_iter().flatten();
        match prefixes.any(|(length, first)| masked(address.octets(), u32::from(*length)) == *first) {
            true => Further::Given,
            false => Further::No,
        }
    }

    fn generation(&self, index: u32) -> Option<GenerationRecord> {
        Some(self.generations.borrow().get(&index).copied().unwrap_or_default())
    }

    fn identity(&self, address: Address) -> u32 {
        let identities = self.identities.borrow();
        let octets = address.octets();
        (0..=128u8)
            .rev()
            .find_map(|prefix| identities.get(&(prefix, masked(octets, prefix.into()))))
            .copied()
            .unwrap_or_default()
    }

    fn peer(&self, address: Address) -> u32 {
        self.peers.borrow().get(&address).copied().unwrap_or_default()
    }

    fn port_class(&self, slot: u32, protocol: u8, port: u16) -> Option<u32> {
        let classes = self.port_classes.borrow();
        let key = port_key(slot, protocol, port);
        (0..=PORT_PREFIX).rev().find_map(|prefix| classes.get(&(prefix, masked(key, prefix)))).copied()
    }

    fn rule(&self, key: &RuleKey) -> Option<u32> {
        self.rules.borrow().get(key).copied()
    }

    fn connection(&self, key: &ConnectionKey) -> Option<Entry> {
        self.connections.borrow().get(key).cloned()
    }

    fn insert(&self, key: &ConnectionKey, record: &ConnectionRecord) -> Stored {
        let mut connections = self.connections.borrow_mut();
        if connections.contains_key(key) {
            return Stored::Already;
        }
        if connections.len() >= self.capacity.get() {
            return Stored::Full;
        }
        connections.insert(*key, Rc::new(record.map(Cell::new)));
        Stored::New
    }

    fn remove(&self, key: &ConnectionKey) -> Removed {
        match self.connections.borrow_mut().remove(key) {
            Some(_) => Removed::Now,
            None => Removed::Before,
        }
    }

    fn ended(&self, key: &ConnectionKey, entry: &[Cell<u64>; 9]) {
        self.ended.borrow_mut().push((*key, entry.each_ref().map(Cell::get)));
    }

    fn add(&self, counter: &Cell<u64>, n: u64) {
        counter.set(counter.get().wrapping_add(n));
    }

    fn limits(&self) -> Limits {
        self.limits.get()
    }

    fn standing(&self) -> Standing {
        self.standing.get()
    }

    fn in_use(&self, endpoint: u32, share: Share) -> u64 {
        self.shares.borrow().get(&endpoint).map_or(0, |shares| shares[share as usize])
    }

    fn take(&self, endpoint: u32, share: Share) {
        let mut shares = self.shares.borrow_mut();
        let count = &mut shares.entry(endpoint).or_default()[share as usize];
        *count = count.wrapping_add(1);
    }

    fn release(&self, endpoint: u32, share: Share) {
        let mut shares = self.shares.borrow_mut();
        let count = &mut shares.entry(endpoint).or_default()[share as usize];
        *count = count.wrapping_sub(1);
    }

    fn fragment(&self, slot: u32) -> FragmentRecord {
        self.fragments.borrow().get(&slot).copied().unwrap_or_default()
    }

    fn remember(&self, slot: u32, record: &FragmentRecord) {
        self.fragments.borrow_mut().insert(slot, *record);
    }

    fn rate(&self, endpoint: u32) -> [u64; 2] {
        self.rates.borrow().get(&endpoint).copied().unwrap_or_default()
    }

    fn set_rate(&self, endpoint: u32, bucket: [u64; 2]) {
        self.rates.borrow_mut().insert(endpoint, bucket);
    }

    fn sockets(&self, _endpoint: u32, _from_peer: &FlowKey) -> Sockets {
        self.sockets.get()
    }
}

impl Expiring for Memory {
    fn swept(&self) -> Nanos {
        self.swept.get()
    }

    fn expired(&self) -> Nanos {
        self.expired.get()
    }

    fn claim(&self, expired: Nanos, now: Nanos) -> Claim {
        if self.expired.replace(now) == expired { Claim::Ours } else { Claim::Others }
    }

    fn expire_all(&self, now: Nanos) {
        let all: Vec<_> = self.connections.borrow().iter().map(|(key, entry)| (*key, entry.clone())).collect();
        all.iter().for_each(|(key, entry)| crate::expire(self, key, entry, now));
    }
}
