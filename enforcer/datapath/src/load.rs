//! The program loaded, with its maps; the one thing an agent holds.

use crate::{
    Ahead, Attachment, Bindings, Counter, Counters, Error, Hooks, Ignored, Link, Published, Sweep, TableSize, Tables,
    ahead::ahead,
    attach::{Left, program, program_mut},
    discover::veths,
    epochs::EPOCHS,
    events::drain,
    fill::Sizes,
    kept::{Record, Turn, Word},
    netlink::Route,
    pins::{self, KEPT, Pins},
    seats::Seats,
};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, RingBuf},
    programs::SchedClassifier,
};
use compile::Plan;
use flow::Direction;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use verdict::{
    Limits, Sockets, Standing,
    abi::{self, CounterRecord, Event, Nanos, maps},
};

/// What packets of a veth get whose pod is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum UnknownPod {
    /// They pass, counted.
    #[default]
    Pass,
    /// They are denied.
    Deny,
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder on a bpffs for pins, of this network namespace alone; what is pinned lies under a layout
    /// version in it. `None`: nothing is pinned, and all of it ends with the process.
    pub bpffs: Option<PathBuf>,
    /// What packets of unknown pods get.
    pub unknown_pod: UnknownPod,
    /// Interfaces that are left alone.
    pub ignore_interfaces: Ignored,
    /// Entries an endpoint may hold.
    pub limits: Limits,
    /// What becomes of connections that policy no longer allows.
    pub standing: Standing,
    /// Events a CPU may make in a tenth of a second.
    pub events: u64,
    /// How to attach; `None`: as the kernel can best.
    pub attachment: Option<Attachment>,
    /// Entries the connection table holds; `None`: as the object says.
    pub connections: Option<u32>,
    /// Rules the tables hold, those of an old policy and a new one beside each other; `None`: as the object says.
    pub rules: Option<u32>,
    /// Prefixes of addresses with an identity; `None`: as the object says.
    pub identities: Option<u32>,
    /// `Some`: time and sockets come from [`Datapath::set_test`] (test runs).
    pub test: Option<TestInput>,
}

/// What a test run reads instead of the clock and the pod's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TestInput {
    pub now: Nanos,
    pub sockets: Sockets,
    pub standing: Standing,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bpffs: None,
            unknown_pod: UnknownPod::default(),
            ignore_interfaces: Ignored::default(),
            limits: Limits { half_open: 4096, established: 65_536, tombstones: 4096 },
            standing: Standing::default(),
            events: 2000,
            attachment: None,
            connections: None,
            rules: None,
            identities: None,
            test: None,
        }
    }
}

/// The kernel program with its tables and hooks. With a place for pins, dropping it leaves all of it to the next
/// agent, and enforcement in place; [`Datapath::detach`] takes it away. Without, everything ends with it.
pub struct Datapath {
    ebpf: Ebpf,
    hooks: Hooks,
    tables: Tables,
    sweep: Sweep,
    sizes: Sizes,
    counters: PerCpuArray<MapData, CounterRecord>,
    ring: RingBuf<MapData>,
    test: Array<MapData, [u64; 2]>,
    /// Events that named nothing.
    pub unreadable_events: u64,
    pins: Option<Pins>,
    record: Record,
    seats: Option<Seats>,
    before: u64,
    ignored: Ignored,
    /// Links that lead to nobody and are waited for: see [`Datapath::publish`].
    waiting: BTreeSet<u32>,
}

impl Datapath {
    /// Loads the program that the build script built.
    pub fn load(options: &Options) -> Result<Self, Error> {
        Self::load_object(crate::OBJECT, options)
    }

    /// Loads another object of the same layout.
    pub fn load_object(object: &[u8], options: &Options) -> Result<Self, Error> {
        let globals: [(&'static str, u64); 7] = [
            (abi::TEST_GLOBAL, u64::from(options.test.is_some())),
            (abi::UNKNOWN_POD_GLOBAL, u64::from(options.unknown_pod == UnknownPod::Pass)),
            (abi::HALF_OPEN_GLOBAL, options.limits.half_open),
            (abi::ESTABLISHED_GLOBAL, options.limits.established),
            (abi::TOMBSTONE_GLOBAL, options.limits.tombstones),
            (abi::STANDING_GLOBAL, options.standing as u64),
            (abi::EVENT_GLOBAL, options.events),
        ];
        let mut loader = EbpfLoader::new();
        for (name, value) in &globals {
            loader.override_global(name, value, true);
        }
        let sizes = [
            (maps::CONNECTIONS, options.connections),
            (maps::RULES, options.rules),
            (maps::IDENTITIES, options.identities),
        ];
        for (name, entries) in sizes {
            if let Some(entries) = entries {
                loader.map_max_entries(name, entries);
            }
        }
        let pins = options.bpffs.as_deref().map(Pins::open).transpose()?;
        if let Some(pins) = &pins {
            pins.check(object, options.connections)?;
            for name in KEPT {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut ebpf = loader.load(object).map_err(|e| Error::Load(Box::new(e)))?;
        for name in [abi::TO_POD, abi::FROM_POD] {
            program_mut(&mut ebpf, name)?.load().map_err(|e| Error::Load(Box::new(e)))?;
        }
        let hooks = Hooks::new(&ebpf, pins.as_ref(), options.attachment)?;
        let sizes = Sizes::of(&ebpf);
        let tables = Tables::of(&mut ebpf, pins.as_ref())?;
        let mut datapath = Self {
            sizes,
            sweep: Sweep::of(&mut ebpf, pins.as_ref())?,
            counters: take_map(&mut ebpf, maps::COUNTERS)?,
            ring: take_map(&mut ebpf, maps::EVENTS)?,
            test: take_map(&mut ebpf, maps::TEST)?,
            unreadable_events: 0,
            hooks,
            tables,
            ebpf,
            record: Record::open(pins.as_ref())?,
            seats: None,
            before: 0,
            ignored: options.ignore_interfaces.clone(),
            waiting: BTreeSet::new(),
            pins,
        };
        if let Some(input) = options.test {
            datapath.set_test(input)?;
        }
        Ok(datapath)
    }

    /// The program of a direction, for test runs and its figures.
    pub fn program(&self, direction: Direction) -> Result<&SchedClassifier, Error> {
        program(&self.ebpf, if direction == Direction::Inbound { abi::TO_POD } else { abi::FROM_POD })
    }

    /// The tables, for tests that write them entry by entry.
    pub fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Every table: its room and memory.
    pub fn sizes(&self) -> Vec<TableSize> {
        self.sizes.now()
    }

    /// What is attached, and how.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// What test runs read instead of the clock and the pod's sockets.
    pub fn set_test(&mut self, input: TestInput) -> Result<(), Error> {
        self.test
            .set(0, [input.now, input.sockets as u64 | (input.standing as u64) << 8], 0)
            .map_err(Error::table("write", maps::TEST))
    }

    /// Takes over from the agent before, if there was one: who has which ordinal, what of each connection was
    /// told, the last epoch. From now on that agent has lost its turn, while its program goes on in the hooks
    /// until a publish. Nothing happens the second time.
    pub fn adopt(&mut self) -> Result<(), Error> {
        if self.seats.is_some() {
            return Ok(());
        }
        self.record.take_turn()?;
        self.before = self.tables.adopt()?;
        let entries = self.sweep.adopt()?;
        self.seats = Some(Seats::after(self.tables.places(), entries));
        Ok(())
    }

    /// Whether this agent still has its turn.
    pub fn turn(&self) -> Result<Turn, Error> {
        self.record.turn()
    }

    /// The last epoch of the agent before: what was judged under it names rules by other numbers than this
    /// agent's. 0 where there was none.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// A word that the agent before handed on; 0 where there was none.
    pub fn handed_on(&self, word: Word) -> Result<u64, Error> {
        self.record.get(word)
    }

    /// Hands a word on to the next agent.
    pub fn hand_on(&mut self, word: Word, value: u64) -> Result<(), Error> {
        self.record.set(word, value)
    }

    /// Gives the pods of a plan their ordinals in the kernel; to be called before [`Datapath::publish`].
    pub fn number(&mut self, plan: &mut Plan) -> Result<(), Error> {
        self.adopt()?;
        if let Some(seats) = &mut self.seats {
            seats.number(plan, self.tables.places());
        }
        Ok(())
    }

    /// Carries a plan out, then attaches: to the links of the pods it covers, and to those whose pod is not known,
    /// where the node's setting is the whole rule. A link that went meanwhile is reported, not an error.
    ///
    /// Hooks of the agent before get this one's program now, when all it looks up is in place. One of a link that
    /// leads to nobody is left as it is while some pod still lacks its link: it may be that pod's.
    pub fn publish(&mut self, plan: &Plan, bindings: &Bindings) -> Result<Published, Error> {
        if self.turn()? == Turn::Passed {
            return Err(Error::TurnPassed);
        }
        let mut published = self.tables.publish(plan, &bindings.bound)?;
        self.waiting.clear();
        for link in bindings.unknown.iter().filter(|_| !bindings.pods_without_link.is_empty()) {
            if self.hooks.is_left_by_another(link)? == Left::Program {
                self.waiting.insert(link.ifindex);
            }
        }
        let mut wanted = BTreeSet::new();
        for link in bindings.bound.values().chain(&bindings.unknown) {
            wanted.insert(link.ifindex);
            if self.waiting.contains(&link.ifindex) {
                continue;
            }
            if let Err(error) = self.hooks.attach(&mut self.ebpf, link) {
                tracing::warn!(%error, "not attached");
                published.not_attached.push((link.ifindex, error));
            }
        }
        for ifindex in self.hooks.attached() {
            if !wanted.contains(&ifindex) {
                self.hooks.detach(ifindex);
            }
        }
        self.hooks.prune(&self.waiting)?;
        Ok(published)
    }

    /// Attaches to links that came since the last look, whatever their pod: one question to the kernel, so that
    /// it can be asked as soon as a link changes. How many there were.
    pub fn attach_new(&mut self) -> Result<usize, Error> {
        let found = veths(&mut Route::open()?, &self.ignored)?;
        let attached = self.hooks.attached();
        let mut new = 0;
        for link in found.links.values() {
            if attached.contains(&link.ifindex) || self.waiting.contains(&link.ifindex) {
                continue;
            }
            match self.hooks.attach(&mut self.ebpf, link) {
                Ok(()) => new += 1,
                Err(error) => tracing::warn!(%error, "not attached"),
            }
        }
        Ok(new)
    }

    /// What stands before this agent's programs, by interface index; interfaces with nothing are left out.
    pub fn ahead(&self) -> Result<BTreeMap<u32, Vec<Ahead>>, Error> {
        let mut route = Route::open()?;
        let found = veths(&mut route, &self.ignored)?;
        let id = |name| {
            let info = program(&self.ebpf, name)?.info().map_err(|e| Error::Load(Box::new(e)))?;
            Ok::<u32, Error>(info.id())
        };
        let ours = [id(abi::FROM_POD)?, id(abi::TO_POD)?];
        let mut all = BTreeMap::new();
        for ifindex in self.hooks.attached().into_iter().filter(|ifindex| found.links.contains_key(ifindex)) {
            let xdp = found.xdp.get(&ifindex).copied();
            let before = ahead(&mut route, ifindex, xdp, self.hooks.attachment(), ours)?;
            if !before.is_empty() {
                all.insert(ifindex, before);
            }
        }
        if !all.is_empty() {
            // A link that goes loses its programs; it is not overtaken.
            let left = veths(&mut route, &self.ignored)?.links;
            all.retain(|ifindex, _| left.contains_key(ifindex));
        }
        Ok(all)
    }

    /// Attaches to links whatever their pod: what is not known gets the node's setting.
    pub fn attach(&mut self, link: &Link) -> Result<(), Error> {
        self.hooks.attach(&mut self.ebpf, link)
    }

    /// The counters now.
    pub fn counters(&self) -> Result<Counters, Error> {
        Counters::read(&self.counters)
    }

    /// One counter now: its index is `verdict::abi::counter_index`.
    pub fn counter(&self, index: u32) -> Result<Counter, Error> {
        Counter::read(&self.counters, index)
    }

    /// Events that wait, at most `limit`.
    pub fn events(&mut self, limit: usize) -> Vec<Event> {
        drain(&mut self.ring, limit, &mut self.unreadable_events)
    }

    /// The connection table, for sweeping.
    pub fn sweep(&mut self) -> (&mut Sweep, &mut Tables) {
        (&mut self.sweep, &mut self.tables)
    }

    /// Detaches everywhere and removes the pins; the tables can still be read. Where another agent has taken
    /// over, that one's hooks and pins stay.
    pub fn detach(&mut self) -> Result<(), Error> {
        if self.turn()? == Turn::Passed {
            self.hooks.leave();
            return Ok(());
        }
        self.hooks.detach_all()?;
        let Some(pins) = &self.pins else { return Ok(()) };
        // Not the counter of epochs: it outlives every agent.
        for path in pins::listed(pins.layout())?.iter().filter(|path| **path != pins.folder(EPOCHS)) {
            if path.is_dir() {
                pins::remove_all(path)?;
            } else {
                pins::remove(path)?;
            }
        }
        Ok(())
    }

    /// Where the pins lie.
    pub fn pins(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::layout)
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.hooks.leave();
    }
}

/// Takes a map out of the loaded object, as the type that reads it.
pub(crate) fn take_map<T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Object { what: "map", name })?;
    T::try_from(map).map_err(Error::table("open", name))
}
