//! The loop of one node, in the node's network namespace.

mod own;
pub(crate) mod reporting;
mod standing;

use crate::{
    Answer, Clients, Error, Options, Question, Report,
    check::Check,
    foreign::{Foreign, Met},
    halves::{self, Certainty, Halves, Swept},
    keeper::Keeper,
    question::Asker,
    slices::{Teller, ended_key},
    status::{NotCovered, Status, Stopped, Update, Window},
};
use compile::{Compiler, RuleTable};
use datapath::{
    Ahead, Bindings, Changed, Counted, Datapath, Notices, Published, SweptEntry, Turn, UnknownPod, Word, bind,
    discover, monotonic_coarse, return_free_memory,
};
use flowlog::Writer;
use model::{
    cluster::Cluster,
    history::{History, Settings},
    ledger::Ledger,
    record::{FlowEvent, UnixNanos},
    view::AddressView,
};
use observer::{Observer, Wait};
use own::Own;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use verdict::{
    Mode, Reason,
    abi::{ConnectionKey, EventKind, Nanos, client_of, connection_parts},
    memory::Memory,
};

/// What the thread is asked.
pub(crate) enum Ask {
    Update { cluster: Box<Cluster>, reply: Sender<Result<Update, Error>> },
    Flush(Sender<Result<(), Error>>),
    Status(Sender<Result<Status, Error>>),
    Ledger(Sender<Ledger>),
    ComesFrom(String),
    Refused(String),
    Report(Sender<Result<Report, Error>>),
    Why { question: Question, reply: Sender<Result<Answer, String>> },
    Stop(Sender<Result<Stopped, Error>>),
    Leave(Sender<Result<Stopped, Error>>),
}

/// Events read at once, so that one busy ring starves nothing else.
const BATCH: usize = 16_384;
/// Of two reckonings of when the kernel's clock was zero, the first holds while they differ by less: beyond,
/// somebody has set the clock.
const CLOCK_SET: u64 = 1_000_000_000;
/// How long after the first publish a denied datagram may be an answer to one that nobody saw.
const ANSWERS_MAY_COME: Nanos = 2_000_000_000;
/// So long a flow waits until its pods are in the cluster's objects, so many at once.
const PATIENCE: Wait = Wait { patience: 5_000_000_000, room: 16_384 };
/// The log's time passes, and links are looked for, this often.
const TICK: Duration = Duration::from_secs(1);
/// What was in use for a moment (a segment of the log being written, a compile) goes back to the system this often.
const RETURN_MEMORY: Duration = Duration::from_mins(1);

/// Whether the kernel's tables and events are this agent's to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Not before it knows the cluster: what an earlier agent left is told by names.
    NotYet,
    Yes,
    /// Another agent has taken over.
    NoMore,
}

/// One node.
pub(crate) struct Node {
    options: Options,
    datapath: Datapath,
    compiler: Compiler,
    keeper: Keeper,
    /// What is in force, with the kernel's ordinals.
    table: RuleTable,
    observer: Observer,
    teller: Teller,
    links: Notices,
    own: Own,
    /// Links changed, and nobody has looked which pods they lead to yet.
    moved: Changed,
    looked: Instant,
    window: Window,
    ahead: BTreeMap<Arc<str>, Vec<Ahead>>,
    halves: Halves,
    reads: Reads,
    /// When what was denied may have been an answer to what passed before this agent's programs were in the hooks.
    answers: Range<Nanos>,
    cluster: Option<Box<Cluster>>,
    /// What the cluster was before, for flows of then.
    past: History,
    bindings: Bindings,
    tables: Memory,
    idle_told: HashSet<(ConnectionKey, u64)>,
    lost_told: u64,
    last_gap: UnixNanos,
    events: u64,
    rows_without_entry: u64,
    events_without_row: u64,
    counted: BTreeMap<u32, Counted>,
    idle_judged: u64,
    log_failures: (u64, Option<String>),
    history: reporting::History,
    check: Check,
    foreign: Foreign,
}

impl Node {
    pub(crate) fn new(options: Options, writer: Writer) -> Result<Self, Error> {
        let datapath = Datapath::load(&options.datapath)?;
        let now = unix_now();
        let clock_zero = now - i64::try_from(monotonic_coarse()).unwrap_or(i64::MAX);
        let instance = format!("{}@{now}", options.node);
        let view = AddressView::new(&Cluster::default());
        let mut compiler = Compiler::new(&options.node, options.default_mode);
        compiler.source_prefixes(options.source_prefixes);
        Ok(Self {
            compiler,
            keeper: Keeper::open(&options),
            observer: Observer::new(writer, view, &options.node, &instance).that_waits(PATIENCE),
            teller: Teller::new(clock_zero),
            links: Notices::of_links()?,
            own: Own::listen()?,
            table: RuleTable::default(),
            moved: Changed::No,
            looked: Instant::now(),
            window: Window::default(),
            ahead: BTreeMap::new(),
            halves: Halves::default(),
            reads: Reads::NotYet,
            answers: 0..0,
            datapath,
            options,
            cluster: None,
            past: History::new(Settings::default()),
            bindings: Bindings::default(),
            tables: Memory::default(),
            idle_told: HashSet::new(),
            lost_told: 0,
            last_gap: now,
            events: 0,
            rows_without_entry: 0,
            events_without_row: 0,
            counted: BTreeMap::new(),
            idle_judged: 0,
            log_failures: (0, None),
            history: reporting::History::since(now),
            check: Check::new(now.cast_unsigned()),
            foreign: Foreign::default(),
        })
    }

    pub(crate) fn run(mut self, asked: &Receiver<Ask>) {
        let [mut swept, mut ticked, mut returned] = [Instant::now(); 3];
        loop {
            match asked.recv_timeout(self.options.read_every) {
                Ok(Ask::Update { cluster, reply }) => {
                    let _ = reply.send(self.update(cluster));
                }
                Ok(Ask::Flush(reply)) => {
                    let _ = reply.send(self.flush());
                }
                Ok(Ask::Status(reply)) => {
                    let _ = reply.send(self.status());
                }
                Ok(Ask::Ledger(reply)) => {
                    let _ = reply.send(self.observer.ledger().clone());
                }
                Ok(Ask::ComesFrom(from)) => self.history.comes_from(&from),
                Ok(Ask::Refused(why)) => self.history.refused(unix_now(), why),
                Ok(Ask::Report(reply)) => {
                    let _ = reply.send(reporting::report(&mut self));
                }
                Ok(Ask::Why { question, reply }) => {
                    let _ = reply.send(self.why(&question));
                }
                Ok(Ask::Stop(reply)) => {
                    let _ = reply.send(self.stop());
                    return;
                }
                Ok(Ask::Leave(reply)) => {
                    let _ = reply.send(self.leave());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.leave();
                    return;
                }
            }
            let mut done = self.attach_new();
            done = done.and_then(|()| self.read_events());
            if swept.elapsed() >= self.options.sweep_every {
                swept = Instant::now();
                done = done.and_then(|()| self.sweep(self.options.slice_every));
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                done = done.and_then(|()| self.tick());
            }
            if returned.elapsed() >= RETURN_MEMORY {
                returned = Instant::now();
                return_free_memory();
            }
            if let Err(error) = done {
                tracing::warn!(%error, "the node's loop goes on after an error");
            }
        }
    }

    /// Compiles, binds, publishes. What flowed before is told with the cluster as it was before.
    fn update(&mut self, mut cluster: Box<Cluster>) -> Result<Update, Error> {
        let first = self.reads == Reads::NotYet;
        if first {
            self.take_over(&cluster)?;
        }
        self.read_events()?;
        self.sweep(Duration::ZERO)?;
        let own = Own::tell(&mut cluster, &self.options.node)?;
        let keeping = self.keeper.keep(&mut cluster);
        let held = self.held_back();
        self.compiler.hold(held);
        let mut plan = self.compiler.plan(&cluster, &cluster.policies, &cluster.staged)?;
        let before = self.bindings.bound.iter().map(|(uid, link)| (uid.clone(), link.ifindex)).collect();
        let pods = plan.table.endpoints.values().map(|endpoint| (&endpoint.uid, &endpoint.addresses[..]));
        let bindings = bind(&discover(&self.options.datapath.ignore_interfaces)?, pods, &before);
        // Hooks come with the link, nearly always before its pod is known. Of an earlier agent's, this one knows nothing
        // yet, but its connections must not be cut.
        let hooks = self.datapath.hooks().attached();
        let stood = |uid: &Arc<str>| first || bindings.bound.get(uid).is_some_and(|link| hooks.contains(&link.ifindex));
        if self.compiler.cover(self.that_refuse(&bindings, stood)) == compile::Changed::Yes {
            plan = self.compiler.plan(&cluster, &cluster.policies, &cluster.staged)?;
        }
        self.keeper.write(&keeping);
        let begun = monotonic_coarse();
        let mut published = self.publish(&mut plan, &bindings)?;
        if self.cluster.is_none() {
            self.answers = begun..monotonic_coarse() + ANSWERS_MAY_COME;
        }
        self.keeper.done(keeping);
        self.own.done(own);
        // A refusal may be left to hooks that came just now, and to none that could not be attached.
        let failed: BTreeSet<u32> = published.not_attached.iter().map(|(ifindex, _)| *ifindex).collect();
        let stand = |uid: &Arc<str>| !bindings.bound.get(uid).is_some_and(|link| failed.contains(&link.ifindex));
        if self.compiler.cover(self.that_refuse(&bindings, stand)) == compile::Changed::Yes {
            let mut later = self.compiler.plan(&cluster, &cluster.policies, &cluster.staged)?;
            match self.publish(&mut later, &bindings) {
                Ok(done) => {
                    published.add(done);
                    plan = later;
                }
                Err(error) => tracing::warn!(%error, "what stands is the update without the hooks that came with it"),
            }
        }
        // What gone endpoints counted is told while it is known who they were.
        self.sweep(Duration::ZERO)?;
        for (ordinal, place) in self.datapath.tables().places() {
            self.teller.places.insert(*ordinal, place.clone());
        }
        self.tables = plan.table.in_memory(0);
        self.idle_told.clear();
        self.learn_of(&cluster);
        self.table = plan.table;
        self.foreign.keep(&self.table.endpoints.keys().collect());
        let update = self.report(&self.table, &bindings, published);
        self.bindings = bindings;
        self.history.updated(unix_now(), &update);
        self.check.updated(&cluster, &self.table);
        self.cluster = Some(cluster);
        Ok(update)
    }

    /// Carries a plan out, and makes it the one in force.
    fn publish(&mut self, plan: &mut compile::Plan, bindings: &Bindings) -> Result<Published, Error> {
        self.datapath.number(plan)?;
        self.teller.learn(&plan.table.rules);
        let published = self.datapath.publish(plan, bindings)?;
        self.compiler.adopt(plan);
        Ok(published)
    }

    /// The pods, by UID, to whose hooks a client's refusals may be left: bound ones, where hooks `stand` and no half of
    /// connections passes by them.
    fn that_refuse(&self, bindings: &Bindings, stand: impl Fn(&Arc<str>) -> bool) -> BTreeSet<Arc<str>> {
        match self.options.clients {
            Clients::Seen => {
                let halves = self.halves.all();
                let refuses = |uid: &&Arc<str>| stand(uid) && !halves.contains_key(*uid);
                bindings.bound.keys().filter(refuses).cloned().collect()
            }
            Clients::Masqueraded => BTreeSet::new(),
        }
    }

    /// Attributes by this cluster from now on, and flows of earlier by what it was then.
    fn learn_of(&mut self, cluster: &Cluster) {
        let now = unix_now();
        self.past.relist(cluster, now, None);
        self.past.forget(now);
        self.observer.set_view(AddressView::new(self.past.cluster()));
    }

    /// Attaches to a link as soon as it is there: until its pod is known, the node's setting is its rule.
    fn attach_new(&mut self) -> Result<(), Error> {
        if self.reads != Reads::Yes || self.cluster.is_none() {
            return Ok(());
        }
        let changed = self.links.any()?;
        let before = std::mem::replace(&mut self.looked, Instant::now());
        if changed == Changed::Yes {
            self.moved = Changed::Yes;
            let new = self.datapath.attach_new()?;
            // It came after the last look.
            self.window.attached(new as u64, before.elapsed());
        }
        Ok(())
    }

    /// What stands before our programs, by interface name. What is new is told at once.
    fn look_ahead(&mut self) -> Result<(), Error> {
        let names = self.bindings.bound.values().chain(&self.bindings.unknown);
        let names: BTreeMap<u32, &Arc<str>> = names.map(|link| (link.ifindex, &link.name)).collect();
        let mut now = BTreeMap::new();
        for (ifindex, ahead) in self.datapath.ahead()? {
            let name = names.get(&ifindex).map_or_else(|| Arc::from(ifindex.to_string()), |name| Arc::clone(name));
            for one in ahead.iter().filter(|one| self.ahead.get(&name).is_none_or(|before| !before.contains(one))) {
                tracing::warn!(interface = &*name, "overtaken: {one}");
            }
            now.insert(name, ahead);
        }
        self.ahead = now;
        Ok(())
    }

    /// Goes on where the agent before this one ended, if there was one.
    fn take_over(&mut self, cluster: &Cluster) -> Result<(), Error> {
        self.datapath.adopt()?;
        self.learn_of(cluster);
        let clock_zero = self.datapath.handed_on(Word::ClockZero)?.cast_signed();
        if clock_zero.abs_diff(self.teller.clock_zero) < CLOCK_SET {
            self.teller.clock_zero = clock_zero;
        } else {
            self.datapath.hand_on(Word::ClockZero, self.teller.clock_zero.cast_unsigned())?;
        }
        self.teller.unnamed = self.datapath.before();
        self.events = self.datapath.handed_on(Word::EventsRead)?;
        self.lost_told = self.datapath.handed_on(Word::LostTold)?;
        for (ordinal, place) in self.datapath.tables().places() {
            self.teller.places.insert(*ordinal, place.clone());
        }
        // An agent that leaves in good order sets it to 0. One that was killed may not have handed over what it told
        // in its last second: slices, of flows that go on as long as lies between two of them.
        let last_look = self.datapath.handed_on(Word::LastLook)?.cast_signed();
        let slice = i64::try_from(self.options.slice_every.as_nanos()).unwrap_or(i64::MAX);
        if last_look != 0
            && let Err(error) = self.observer.gap(last_look.saturating_sub(slice), unix_now(), "agent-killed", 0)
        {
            self.log_failed(&error);
        }
        self.reads = Reads::Yes;
        Ok(())
    }

    fn report(&self, table: &compile::RuleTable, bindings: &Bindings, published: Published) -> Update {
        let mut update = Update {
            endpoints: published.endpoints,
            identities: published.identities,
            slots: published.slots,
            uncovered_links: bindings.uncovered.clone(),
            warnings: table.warnings.clone(),
            kept: self.keeper.kept().clone(),
            ..Update::default()
        };
        let failed: BTreeMap<u32, String> =
            published.not_attached.iter().map(|(ifindex, error)| (*ifindex, chain(error))).collect();
        for endpoint in table.endpoints.values() {
            let pod: Arc<str> = format!("{}/{}", endpoint.namespace, endpoint.name).into();
            let why = match bindings.bound.get(&endpoint.uid) {
                Some(link) => failed.get(&link.ifindex).cloned(),
                None => Some("no link leads to it".to_owned()),
            };
            match why {
                None => {
                    update.covered.insert(pod, endpoint.mode);
                }
                Some(why) => update.not_covered.push(NotCovered { pod, why }),
            }
        }
        update
    }

    fn read_events(&mut self) -> Result<(), Error> {
        if self.reads != Reads::Yes {
            return Ok(());
        }
        loop {
            let events = self.datapath.events(BATCH);
            let more = events.len() == BATCH;
            if !events.is_empty() {
                self.datapath.hand_on(Word::EventsRead, self.events + events.len() as u64)?;
            }
            for event in events {
                self.events += 1;
                match event.kind {
                    EventKind::Ended => {
                        let key = ended_key(&event);
                        let entry = self.datapath.sweep().0.ended(&event, key)?;
                        self.tell(&entry);
                    }
                    EventKind::Verdict if event.reason.allows() => {}
                    // Nobody knows whose packet it is, and it passed: counted, and no row.
                    EventKind::Verdict if event.reason == Reason::UnknownPod && !self.denies_unknown() => {
                        self.events_without_row += 1;
                    }
                    EventKind::Verdict => self.denied(&event)?,
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn denies_unknown(&self) -> bool {
        self.options.datapath.unknown_pod == UnknownPod::Deny
    }

    /// A denial: its entry tells of it, where there is one; else the event is all there is.
    fn denied(&mut self, event: &verdict::abi::Event) -> Result<(), Error> {
        if event.reason == Reason::Spoofed {
            self.foreign_source(event);
        }
        let leaves_entry = matches!(
            event.reason,
            Reason::NoRule
                | Reason::NoRulePortless
                | Reason::NoRuleMasqueraded
                | Reason::NotAdopted
                | Reason::StandingDenial
                | Reason::Revoked
                | Reason::RefusedByClient
        );
        if leaves_entry
            && let Some(key) = self.teller.entry_key(event)
            && self.datapath.sweep().0.entry(&key)?.is_some()
        {
            return Ok(());
        }
        match self.teller.attempt(event) {
            Some(row) => {
                self.rows_without_entry += 1;
                self.observe(row);
            }
            None => self.events_without_row += 1,
        }
        Ok(())
    }

    /// Names the pod that sent from an address that is not its own: the row has the address and the link alone.
    fn foreign_source(&mut self, event: &verdict::abi::Event) {
        let Some(place) = self.teller.places.get(&event.endpoint) else { return };
        let Some(endpoint) = self.table.endpoints.get(&place.uid) else { return };
        let source = event.key.source.ip();
        if self.foreign.saw(&place.uid, source, self.teller.unix(event.time)) == Met::New {
            let pod = format!("{}/{}", endpoint.namespace, endpoint.name);
            tracing::warn!(pod, %source, "a pod sends from an address that is not its own; in enforce this is dropped");
        }
    }

    /// Tells what opened, changed or ended, and of what goes on as much as is `due`.
    fn sweep(&mut self, due: Duration) -> Result<(), Error> {
        if self.reads == Reads::Yes && self.datapath.turn()? == Turn::Passed {
            tracing::warn!("another agent has taken over this node; this one reads and publishes nothing any more");
            self.reads = Reads::NoMore;
        }
        if self.reads != Reads::Yes {
            return Ok(());
        }
        let (sweep, tables) = self.datapath.sweep();
        let due = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        let entries = sweep.sweep(tables, monotonic_coarse(), due)?;
        self.tell_all(&entries);
        self.look_at_halves();
        self.judge_idle();
        self.unbury()
    }

    /// Looks for links that only one half of connections crosses. What is new is told at once; where one is whole
    /// again, its pod is held back no longer.
    fn look_at_halves(&mut self) {
        let before = self.halves.all();
        let (sweep, tables) = self.datapath.sweep();
        let pod = |place: &datapath::Place| halves::Pod { uid: place.uid.clone(), addresses: place.addresses };
        let places = tables.places().iter().map(|(ordinal, place)| (*ordinal, pod(place))).collect();
        let nodes = self.table.peers.iter().filter(|(_, peer)| client_of(**peer) == 0);
        let (nodes, now) = (nodes.map(|(address, whose)| (*address, *whose)).collect(), monotonic_coarse());
        self.halves.look(&Swept { places: &places, nodes: &nodes, entries: sweep.standing(), now });
        let after = self.halves.all();
        for (uid, half) in &after {
            if before.get(uid).is_none_or(|before| before.certainty != half.certainty) {
                tracing::warn!(pod_uid = &**uid, "one half of connections: {half}");
            }
        }
        if before.iter().any(|(uid, half)| half.certainty == Certainty::Shown && !after.contains_key(uid)) {
            self.moved = Changed::Yes;
        }
    }

    /// Pods that no namespace's label brings to enforce now, with the mode they stay in: half of their packets
    /// would not be judged. What enforces already goes on.
    fn held_back(&mut self) -> BTreeMap<Arc<str>, Mode> {
        let places = self.datapath.tables().places();
        let shown = self.halves.all().into_iter().filter(|(_, half)| half.certainty == Certainty::Shown);
        shown
            .filter_map(|(uid, _)| {
                let mode = places.values().find(|place| place.uid == uid)?.mode;
                (mode != Mode::Enforce).then_some((uid, mode))
            })
            .collect()
    }

    fn tell_all(&mut self, entries: &[SweptEntry]) {
        for entry in entries {
            self.tell(entry);
        }
    }

    /// One look at an entry: its slice into the log, its counters into the sums of law 7.
    fn tell(&mut self, entry: &SweptEntry) {
        let sums = self.counted.entry(connection_parts(&entry.key).endpoint).or_default();
        sums.packets_in += entry.counted.packets_in;
        sums.bytes_in += entry.counted.bytes_in;
        sums.packets_out += entry.counted.packets_out;
        sums.bytes_out += entry.counted.bytes_out;
        if let Some(event) = self.teller.slice(entry) {
            self.observe(event);
        }
    }

    fn observe(&mut self, event: FlowEvent) {
        if let Err(error) = self.observer.observe(event) {
            self.log_failed(&error);
        }
    }

    fn log_failed(&mut self, error: &observer::Error) {
        self.log_failures.0 += 1;
        let why = chain(error);
        if self.log_failures.1.as_ref() != Some(&why) {
            tracing::warn!(error = why, "the log did not take a row");
            self.log_failures.1 = Some(why);
        }
    }

    /// Once a second: gaps, the log's time, links that came or went.
    fn tick(&mut self) -> Result<(), Error> {
        let now = unix_now();
        if self.reads != Reads::Yes {
            if let Err(error) = self.observer.tick(now) {
                self.log_failed(&error);
            }
            return Ok(());
        }
        let lost = self.datapath.counters()?.lost() + self.datapath.sweep().0.lost_entries;
        if lost > self.lost_told {
            let (from, missing) = (self.last_gap, lost - self.lost_told);
            if let Err(error) = self.observer.gap(from, now, "events-lost", missing) {
                self.log_failed(&error);
            }
            self.lost_told = lost;
            self.datapath.hand_on(Word::LostTold, self.datapath.counters()?.lost())?;
        }
        self.last_gap = now;
        self.observer.watched(now);
        match self.observer.tick(now) {
            Ok(()) => self.datapath.hand_on(Word::LastLook, now.cast_unsigned())?,
            Err(error) => self.log_failed(&error),
        }
        if let Some(cluster) = &self.cluster {
            self.check.some(cluster, self.datapath.tables(), now)?;
        }
        self.look_ahead()?;
        // Addresses of another namespace come without notice: look again while a pod lacks its link, or a
        // link its peer's link-local address, without which neighbour discovery from it looks forged.
        let incomplete = !self.bindings.pods_without_link.is_empty()
            || self.bindings.bound.values().any(|link| link.link_local == flow::Address::default());
        if self.own.changed()? == Changed::Yes {
            self.moved = Changed::Yes;
        }
        let moved = std::mem::replace(&mut self.moved, Changed::No);
        if (incomplete || moved == Changed::Yes || self.keeper.is_due())
            && let Some(mut cluster) = self.cluster.take()
        {
            let kept = cluster.clone();
            self.keeper.given(&mut cluster);
            self.own.given(&mut cluster, &self.options.node);
            if let Err(error) = self.update(cluster) {
                self.cluster = Some(kept);
                return Err(error);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.read_events()?;
        self.sweep(Duration::ZERO)?;
        Ok(self.observer.flush()?)
    }

    /// What the loaded tables say of an opening, and what the reference evaluator says.
    fn why(&mut self, question: &Question) -> Result<Answer, String> {
        let Some(cluster) = &self.cluster else {
            return Err("nothing is enforced yet; ask again when `podfence status` shows endpoints".to_owned());
        };
        Asker { cluster, table: &self.table, tables: self.datapath.tables() }.answer(question)
    }

    fn status(&mut self) -> Result<Status, Error> {
        self.read_events()?;
        Ok(Status {
            attachment: self.datapath.hooks().attachment(),
            publishing: self.datapath.tables().publishing(),
            counters: self.datapath.counters()?,
            events: self.events,
            unreadable_events: self.datapath.unreadable_events,
            rows_without_entry: self.rows_without_entry,
            events_without_row: self.events_without_row,
            lost_entries: self.datapath.sweep().0.lost_entries,
            counted: self.counted.clone(),
            idle_judged: self.idle_judged,
            ahead: self.ahead.clone(),
            halves: self.halves.all(),
            window: self.window,
            log_failures: self.log_failures.clone(),
        })
    }

    /// Takes everything away, and tells the last of every connection.
    fn stop(mut self) -> Result<Stopped, Error> {
        self.datapath.detach()?;
        self.read_events()?;
        if self.reads == Reads::Yes {
            let (sweep, tables) = self.datapath.sweep();
            let entries = sweep.drain(tables)?;
            self.tell_all(&entries);
        }
        self.close()
    }

    /// Ends, and leaves enforcement and connections to the next agent where there is a place for pins.
    fn leave(mut self) -> Result<Stopped, Error> {
        if self.datapath.pins().is_none() {
            return self.stop();
        }
        self.read_events()?;
        self.sweep(Duration::ZERO)?;
        if self.reads == Reads::Yes {
            self.datapath.hand_on(Word::LastLook, 0)?;
        }
        self.close()
    }

    fn close(mut self) -> Result<Stopped, Error> {
        let status = self.status()?;
        let now = unix_now();
        if let Err(error) = self.observer.tick(now) {
            self.log_failed(&error);
        }
        let (ledger, log) = self.observer.close()?;
        Ok(Stopped { status, ledger, log })
    }
}

fn unix_now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str("; ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
