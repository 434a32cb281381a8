//! The kernel's tables, written through `verdict::abi` alone.

mod loaded;

use crate::{
    Error, Link,
    epochs::Epochs,
    kept::Pods,
    load::take_map,
    pins::Pins,
    system::{MappedWords, grace_period},
};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use compile::{Endpoint, EndpointChange, Limits, Plan, Prefix, Slot};
use flow::Address;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
    sync::Arc,
};
use verdict::{
    Mode, Share,
    abi::{
        self, EndpointRecord, FURTHER_PREFIX, GENERATION_BITS, GenerationRecord, OWN_ADDRESSES, PORT_PREFIX, RuleKey,
        endpoint_word, maps, port_key,
    },
};

/// Words of an endpoint record.
const RECORD_WORDS: usize = size_of::<EndpointRecord>() / 8;

/// The tables of the loaded program.
pub struct Tables {
    links: HashMap<MapData, u32, u32>,
    link_slots: Array<MapData, u64>,
    endpoints: Array<MapData, EndpointRecord>,
    words: Option<MappedWords>,
    generations: Array<MapData, GenerationRecord>,
    identities: LpmTrie<MapData, [u8; 16], u32>,
    further: LpmTrie<MapData, [u8; 8], u32>,
    given: BTreeSet<(u32, Prefix)>,
    peers: HashMap<MapData, [u64; 2], u32>,
    port_classes: LpmTrie<MapData, [u8; 8], u32>,
    rules: HashMap<MapData, RuleKey, u32>,
    shares: Array<MapData, [u64; 4]>,
    returned: Array<MapData, [u64; 4]>,
    epochs: Epochs,
    pods: Pods,
    room: Limits,
    places: BTreeMap<u32, Place>,
}

/// An endpoint as it stands in the kernel.
#[derive(Clone, Debug)]
pub struct Place {
    /// The pod's UID.
    pub uid: Arc<str>,
    /// Its own addresses.
    pub addresses: [Address; OWN_ADDRESSES],
    /// Prefixes of addresses it was given beside these.
    pub further: Vec<Prefix>,
    /// Its mode.
    pub mode: Mode,
    /// The word last published.
    pub word: u64,
    /// The link that leads to it: index, name.
    pub link: Option<(u32, Arc<str>)>,
    record: EndpointRecord,
}

impl Place {
    /// An endpoint as an earlier agent left it: this one has published nothing for it yet.
    pub(crate) fn adopted(uid: Arc<str>, addresses: [Address; OWN_ADDRESSES], mode: Mode) -> Self {
        Self { uid, addresses, further: Vec::new(), mode, word: 0, link: None, record: [0; RECORD_WORDS] }
    }
}

/// How an endpoint's word reaches the kernel program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// One store into the mapped table.
    OneStore,
    /// A system call that copies the endpoint's record, of which only the word differs; the object does
    /// not let the table be mapped.
    SystemCall,
}

/// What a publish did.
#[derive(Debug, Default)]
pub struct Published {
    /// Endpoints that got a generation and an epoch.
    pub endpoints: usize,
    /// Identities written and removed.
    pub identities: usize,
    /// Slots written.
    pub slots: usize,
    /// Links the program could not be attached to, and why.
    pub not_attached: Vec<(u32, Error)>,
}

impl Published {
    /// With what a publish right after it did; links are those of the later.
    pub fn add(&mut self, later: Self) {
        self.endpoints += later.endpoints;
        self.identities += later.identities;
        self.slots += later.slots;
        self.not_attached = later.not_attached;
    }
}

impl Tables {
    pub(crate) fn of(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Result<Self, Error> {
        let room = room(ebpf)?;
        let words = map_endpoints(ebpf)?;
        Ok(Self {
            links: take_map(ebpf, maps::LINKS)?,
            link_slots: take_map(ebpf, maps::LINK_SLOTS)?,
            endpoints: take_map(ebpf, maps::ENDPOINTS)?,
            words,
            generations: take_map(ebpf, maps::GENERATIONS)?,
            identities: take_map(ebpf, maps::IDENTITIES)?,
            further: take_map(ebpf, maps::FURTHER)?,
            given: BTreeSet::new(),
            peers: take_map(ebpf, maps::PEERS)?,
            port_classes: take_map(ebpf, maps::PORT_CLASSES)?,
            rules: take_map(ebpf, maps::RULES)?,
            shares: take_map(ebpf, maps::SHARES)?,
            returned: take_map(ebpf, maps::RETURNED)?,
            epochs: Epochs::open(pins)?,
            pods: Pods::open(pins)?,
            room,
            places: BTreeMap::new(),
        })
    }

    /// How much the tables hold.
    pub fn room(&self) -> &Limits {
        &self.room
    }

    /// How an endpoint's word is published.
    pub fn publishing(&self) -> Publishing {
        if self.words.is_some() { Publishing::OneStore } else { Publishing::SystemCall }
    }

    /// The endpoints as they stand, by ordinal.
    pub fn places(&self) -> &BTreeMap<u32, Place> {
        &self.places
    }

    /// Takes over the endpoints of an earlier agent: the last epoch it gave.
    pub(crate) fn adopt(&mut self) -> Result<u64, Error> {
        self.places = self.pods.all()?;
        self.epochs.read()
    }

    /// Carries a plan out, in the order that [`Plan`]'s module gives. `links` says which link leads to
    /// which pod. Nothing is done if the plan does not fit.
    pub fn publish(&mut self, plan: &Plan, links: &BTreeMap<Arc<str>, Link>) -> Result<Published, Error> {
        plan.fits(&self.room)?;
        if let Err(error) = self.prepare(plan) {
            // Nobody looks at these yet.
            plan.slots_added.iter().for_each(|(number, slot)| {
                let _ = self.remove_slot(*number, slot);
            });
            plan.frontends_added.keys().for_each(|key| {
                let _ = self.rules.remove(key);
            });
            return Err(error);
        }
        self.give_all(&plan.table.endpoints)?;
        for change in &plan.bridging {
            self.store_word(change)?;
        }
        for (prefix, identity) in &plan.identities_set {
            self.set_identity(prefix, *identity)?;
        }
        for prefix in &plan.identities_removed {
            self.remove_identity(prefix)?;
        }
        // New endpoints have their links before a client's word may leave refusals to their hooks.
        let (standing, new): (Vec<_>, Vec<_>) =
            plan.endpoints.iter().partition(|change| self.places.contains_key(&change.ordinal));
        new.into_iter().try_for_each(|change| self.publish_endpoint(plan, change))?;
        self.bind(&plan.table.endpoints, links)?;
        standing.into_iter().chain(&plan.rejudging).try_for_each(|change| self.publish_endpoint(plan, change))?;
        // Also those that only an earlier agent knew.
        let stay: BTreeSet<u32> = plan.table.endpoints.values().map(|endpoint| endpoint.ordinal).collect();
        let left: Vec<u32> = self.places.keys().filter(|ordinal| !stay.contains(*ordinal)).copied().collect();
        for ordinal in left {
            self.remove_endpoint(ordinal)?;
        }
        if !plan.removes_nothing() {
            grace_period();
        }
        for peer in &plan.peers_removed {
            gone(self.peers.remove(&peer.0)).map_err(Error::table("write", maps::PEERS))?;
        }
        if !plan.peers_removed.is_empty() {
            plan.rejudging.iter().try_for_each(|change| self.publish_endpoint(plan, change))?;
        }
        for key in &plan.frontends_removed {
            gone(self.rules.remove(key)).map_err(Error::table("write", maps::RULES))?;
        }
        for (number, slot) in &plan.slots_removed {
            self.remove_slot(*number, slot)?;
        }
        Ok(Published {
            endpoints: plan.endpoints.len(),
            identities: plan.identities_set.len() + plan.identities_removed.len(),
            slots: plan.slots_added.len(),
            not_attached: Vec::new(),
        })
    }

    /// Step 1: what can stand beside the old tables unseen.
    fn prepare(&mut self, plan: &Plan) -> Result<(), Error> {
        for (number, slot) in &plan.slots_added {
            self.set_slot(*number, slot)?;
        }
        for (key, backends) in &plan.frontends_added {
            self.set_rule(key, *backends)?;
        }
        for (index, record) in &plan.generations_added {
            self.set_generation(*index, record)?;
        }
        for (address, peer) in &plan.peers_set {
            self.set_peer(*address, *peer)?;
        }
        Ok(())
    }

    /// Which addresses endpoints have beside their own: at once, before any word.
    fn give_all(&mut self, endpoints: &BTreeMap<Arc<str>, Endpoint>) -> Result<(), Error> {
        let of = |endpoint: &Endpoint| {
            let ordinal = endpoint.ordinal;
            endpoint.further.clone().into_iter().map(move |prefix| (ordinal, prefix))
        };
        let wanted: BTreeSet<(u32, Prefix)> = endpoints.values().flat_map(of).collect();
        for (ordinal, prefix) in wanted.difference(&self.given.clone()) {
            self.give(*ordinal, prefix)?;
        }
        for (ordinal, prefix) in self.given.difference(&wanted) {
            gone(self.further.remove(&further_key(*ordinal, prefix))).map_err(Error::table("write", maps::FURTHER))?;
        }
        self.given = wanted;
        for endpoint in endpoints.values() {
            if let Some(place) = self.places.get_mut(&endpoint.ordinal) {
                place.further.clone_from(&endpoint.further);
            }
        }
        Ok(())
    }

    /// Gives an endpoint a prefix of IPv4 addresses beside its own.
    pub fn give(&mut self, ordinal: u32, prefix: &Prefix) -> Result<(), Error> {
        let key = further_key(ordinal, prefix);
        self.further.insert(&key, 1, 0).map_err(Error::table("write", maps::FURTHER))?;
        self.given.insert((ordinal, *prefix));
        Ok(())
    }

    fn publish_endpoint(&mut self, plan: &Plan, change: &EndpointChange) -> Result<(), Error> {
        let Some(endpoint) = plan.table.endpoints.get(&change.uid) else { return Ok(()) };
        let new = || Place::adopted(endpoint.uid.clone(), endpoint.addresses, endpoint.mode);
        let place = self.places.entry(change.ordinal).or_insert_with(new);
        place.mode = endpoint.mode;
        place.further.clone_from(&endpoint.further);
        // Before the kernel can keep anything under this ordinal.
        self.pods.set(change.ordinal, Some(place))?;
        self.store_word(change)
    }

    /// A generation under a new epoch: one store.
    fn store_word(&mut self, change: &EndpointChange) -> Result<(), Error> {
        let word = endpoint_word(self.epochs.next()?, change.generation);
        let Some(place) = self.places.get_mut(&change.ordinal) else { return Ok(()) };
        place.word = word;
        place.record[0] = word;
        if place.link.is_none() {
            // Written as a whole when a link leads to it.
            return Ok(());
        }
        let record = place.record;
        self.write_word(change.ordinal, word, &record)
    }

    fn write_word(&mut self, ordinal: u32, word: u64, record: &EndpointRecord) -> Result<(), Error> {
        match &self.words {
            Some(words) => {
                words.store(ordinal as usize * RECORD_WORDS, word);
                Ok(())
            }
            None => self.endpoints.set(ordinal, record, 0).map_err(Error::table("write", maps::ENDPOINTS)),
        }
    }

    /// Lets packets of links find their endpoints, and no others. A link that leads to another pod now
    /// is led over by one store: at no moment does it lead to nobody.
    fn bind(
        &mut self,
        endpoints: &BTreeMap<Arc<str>, Endpoint>,
        links: &BTreeMap<Arc<str>, Link>,
    ) -> Result<(), Error> {
        let mut left = BTreeSet::new();
        for endpoint in endpoints.values() {
            let now = links.get(&endpoint.uid).map(|link| link.ifindex);
            let Some(place) = self.places.get_mut(&endpoint.ordinal) else { continue };
            left.extend(place.link.take_if(|(before, _)| Some(*before) != now).map(|(before, _)| before));
        }
        for endpoint in endpoints.values() {
            let Some(link) = links.get(&endpoint.uid) else { continue };
            let Some(place) = self.places.get_mut(&endpoint.ordinal) else { continue };
            // A peer's link-local address may come after the link: only these words ever change.
            let record = record(place.word, link, &endpoint.addresses);
            let led_already = place.link.replace((link.ifindex, link.name.clone())).is_some();
            if std::mem::replace(&mut place.record, record) != record {
                self.set_endpoint(endpoint.ordinal, &record)?;
            }
            if !led_already {
                self.set_link(link.ifindex, endpoint.ordinal)?;
            }
        }
        left.into_iter().try_for_each(|ifindex| self.unlink(ifindex))
    }

    fn remove_endpoint(&mut self, ordinal: u32) -> Result<(), Error> {
        let Some(place) = self.places.remove(&ordinal) else { return Ok(()) };
        if let Some((ifindex, _)) = place.link {
            self.unlink(ifindex)?;
        }
        self.set_endpoint(ordinal, &[0; RECORD_WORDS])?;
        self.pods.set(ordinal, None)
    }

    /// Leads a link to nobody, unless it leads to another endpoint by now.
    fn unlink(&mut self, ifindex: u32) -> Result<(), Error> {
        let led = |place: &Place| place.link.as_ref().is_some_and(|(index, _)| *index == ifindex);
        if self.places.values().any(led) {
            return Ok(());
        }
        self.set_link_slot(ifindex, |slot| if slot as u32 == ifindex { 0 } else { slot })?;
        gone(self.links.remove(&ifindex)).map_err(Error::table("write", maps::LINKS))
    }

    /// Writes a whole endpoint record; only while no link leads to it.
    pub fn set_endpoint(&mut self, ordinal: u32, record: &EndpointRecord) -> Result<(), Error> {
        self.endpoints.set(ordinal, record, 0).map_err(Error::table("write", maps::ENDPOINTS))
    }

    /// Publishes an endpoint's word by one store, for tests that number by themselves.
    pub fn set_word(&mut self, ordinal: u32, word: u64) -> Result<(), Error> {
        let mut record = self.endpoints.get(&ordinal, 0).map_err(Error::table("read", maps::ENDPOINTS))?;
        record[0] = word;
        self.write_word(ordinal, word, &record)
    }

    /// Writes a link's slot: one word, which the kernel copies whole.
    fn set_link_slot(&mut self, ifindex: u32, change: impl Fn(u64) -> u64) -> Result<(), Error> {
        let index = ifindex % abi::LINK_SLOTS;
        let slot = self.link_slots.get(&index, 0).map_err(Error::table("read", maps::LINK_SLOTS))?;
        self.link_slots.set(index, change(slot), 0).map_err(Error::table("write", maps::LINK_SLOTS))
    }

    /// Leads a link to an endpoint.
    pub fn set_link(&mut self, ifindex: u32, ordinal: u32) -> Result<(), Error> {
        self.links.insert(ifindex, ordinal, 0).map_err(Error::table("write", maps::LINKS))?;
        self.set_link_slot(ifindex, |_| abi::link_slot(ifindex, ordinal))
    }

    /// Writes a generation.
    pub fn set_generation(&mut self, index: u32, record: &GenerationRecord) -> Result<(), Error> {
        debug_assert!(index < 1 << GENERATION_BITS);
        self.generations.set(index, record, 0).map_err(Error::table("write", maps::GENERATIONS))
    }

    /// Writes who opens from an address: see [`maps::PEERS`].
    pub fn set_peer(&mut self, address: Address, peer: u32) -> Result<(), Error> {
        self.peers.insert(address.0, peer, 0).map_err(Error::table("write", maps::PEERS))
    }

    /// Writes a prefix's identity.
    pub fn set_identity(&mut self, prefix: &Prefix, identity: u32) -> Result<(), Error> {
        let key = identity_key(prefix);
        self.identities.insert(&key, identity, 0).map_err(Error::table("write", maps::IDENTITIES))
    }

    /// Removes a prefix.
    pub fn remove_identity(&mut self, prefix: &Prefix) -> Result<(), Error> {
        gone(self.identities.remove(&identity_key(prefix))).map_err(Error::table("write", maps::IDENTITIES))
    }

    /// Writes a slot: classes of ports, then rules.
    pub fn set_slot(&mut self, number: u32, slot: &Slot) -> Result<(), Error> {
        for (prefix, class) in slot.port_classes() {
            let key = port_class_key(number, prefix);
            self.port_classes.insert(&key, class, 0).map_err(Error::table("write", maps::PORT_CLASSES))?;
        }
        for (key, rule) in slot.rules(number) {
            self.set_rule(&key, rule)?;
        }
        Ok(())
    }

    /// Writes one rule.
    pub fn set_rule(&mut self, key: &RuleKey, rule: u32) -> Result<(), Error> {
        self.rules.insert(key, rule, 0).map_err(Error::table("write", maps::RULES))
    }

    /// Writes one block of ports.
    pub fn set_port_class(&mut self, prefix: u32, key: [u8; 8], class: u32) -> Result<(), Error> {
        self.port_classes.insert(&Key::new(prefix, key), class, 0).map_err(Error::table("write", maps::PORT_CLASSES))
    }

    fn remove_slot(&mut self, number: u32, slot: &Slot) -> Result<(), Error> {
        for (key, _) in slot.rules(number) {
            gone(self.rules.remove(&key)).map_err(Error::table("write", maps::RULES))?;
        }
        for (prefix, _) in slot.port_classes() {
            let key = port_class_key(number, prefix);
            gone(self.port_classes.remove(&key)).map_err(Error::table("write", maps::PORT_CLASSES))?;
        }
        Ok(())
    }

    /// Entries of an endpoint in a share, as the kernel counts them.
    pub fn in_use(&self, ordinal: u32, share: Share) -> Result<u64, Error> {
        let taken = self.shares.get(&ordinal, 0).map_err(Error::table("read", maps::SHARES))?;
        let returned = self.returned.get(&ordinal, 0).map_err(Error::table("read", maps::RETURNED))?;
        Ok(taken[share as usize].wrapping_sub(returned[share as usize]))
    }

    /// The agent took entries out, or corrects the count by a wrapping number: the share has room again.
    pub(crate) fn give_back(&mut self, ordinal: u32, share: Share, entries: u64) -> Result<(), Error> {
        let mut returned = self.returned.get(&ordinal, 0).map_err(Error::table("read", maps::RETURNED))?;
        returned[share as usize] = returned[share as usize].wrapping_add(entries);
        self.returned.set(ordinal, returned, 0).map_err(Error::table("write", maps::RETURNED))
    }
}

fn record(word: u64, link: &Link, addresses: &[Address; OWN_ADDRESSES]) -> EndpointRecord {
    let mut record: EndpointRecord = [0; RECORD_WORDS];
    record[0] = word;
    record[1] = u64::from(link.netns_id as u32);
    let own = addresses.iter().chain([&link.link_local]);
    for (place, word) in record.iter_mut().skip(2).zip(own.flat_map(|address| address.0)) {
        *place = word;
    }
    record
}

fn identity_key(prefix: &Prefix) -> Key<[u8; 16]> {
    Key::new(u32::from(prefix.length), prefix.address.octets())
}

fn further_key(ordinal: u32, prefix: &Prefix) -> Key<[u8; 8]> {
    let [[a, b, c, d], [e, f, g, h]] = abi::further_prefix(ordinal, prefix.address).map(u32::to_ne_bytes);
    Key::new(FURTHER_PREFIX - (128 - u32::from(prefix.length)), [a, b, c, d, e, f, g, h])
}

fn port_class_key(slot: u32, prefix: compile::PortPrefix) -> Key<[u8; 8]> {
    Key::new(PORT_PREFIX - u32::from(prefix.bits), port_key(slot, prefix.protocol, prefix.port))
}

/// What is gone already need not be removed.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn room(ebpf: &Ebpf) -> Result<Limits, Error> {
    let entries = |name: &'static str| -> Result<usize, Error> {
        let map = ebpf.map(name).ok_or(Error::Object { what: "map", name })?;
        let data = crate::connections::data(map).ok_or(Error::Object { what: "map", name })?;
        Ok(data.info().map_err(Error::table("ask about", name))?.max_entries() as usize)
    };
    Ok(Limits {
        identities: entries(maps::IDENTITIES)?,
        peers: entries(maps::PEERS)?,
        rules: entries(maps::RULES)?,
        port_classes: entries(maps::PORT_CLASSES)?,
        generations: entries(maps::GENERATIONS)?,
        endpoints: entries(maps::ENDPOINTS)?.min(abi::MAX_ENDPOINTS as usize),
    })
}

/// The endpoints' array as memory, where the object declares it so.
fn map_endpoints(ebpf: &Ebpf) -> Result<Option<MappedWords>, Error> {
    let name = maps::ENDPOINTS;
    let map = ebpf.map(name).ok_or(Error::Object { what: "map", name })?;
    let data = crate::connections::data(map).ok_or(Error::Object { what: "map", name })?;
    let entries = data.info().map_err(Error::table("ask about", name))?.max_entries() as usize;
    Ok(MappedWords::new(data.fd().as_fd(), entries * RECORD_WORDS).ok())
}
