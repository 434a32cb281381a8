//! Law 6 on the running kernel, under load: while packets of both directions and families rush past a pod's hook, two
//! policies take turns, by whole plans. Each packet opens a connection of its own, so that its entry, or the tombstone of
//! its denial, keeps the epoch and the rule it was judged by: every single one is held against what the reference
//! evaluator says of the policy of that epoch.
//!
//! The policies disagree on nearly everything, and with every turn two peers get other labels, with every third all
//! identities other numbers. A packet that met one policy's word and the other's tables would show. One thing is no
//! mixture: while a plan is carried out, the older policy is in force over the newer labels for a moment.

mod load;
mod policies;
mod record;

use compile::{Compiler, Plan};
use datapath::{Datapath, Ignored, Options, bind, discover};
use load::Load;
use policies::POD_UID;
use record::Record;
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};
use tests::{fraction, privilege};
use verdict::{Limits, Mode, Reason, abi::epoch_of};

const PUBLISHES: u64 = 1_200;
/// Publishes between two looks at the connection table.
const BETWEEN_LOOKS: u64 = 20;
const CONNECTIONS: u32 = 1 << 19;

#[test]
fn no_packet_is_judged_by_a_mixture_while_policies_change_under_load() {
    if !privilege::kernel("no_packet_is_judged_by_a_mixture_while_policies_change_under_load") {
        return;
    }
    let least = fraction::of(PUBLISHES);
    let record = run(least..=5 * least, |node, plan| node.publish(plan));
    println!("{record}");
    assert!(record.mixtures.is_empty(), "packets judged by a mixture: {:#?}, of {record}", record.mixtures);
    record.assert_under_load();
}

/// The same with words that come before the slots they lead to: the test must see it.
#[test]
fn a_word_that_comes_before_its_slot_is_seen() {
    if !privilege::kernel("a_word_that_comes_before_its_slot_is_seen") {
        return;
    }
    let record = run(60..=60, |node, plan| {
        let mut words = plan.clone();
        words.slots_added.clear();
        node.publish(&words);
        thread::sleep(Duration::from_millis(1));
        node.publish(plan);
    });
    assert!(!record.mixtures.is_empty(), "not one mixture in {record}");
}

/// So many publishes at least, and as many more as it takes until packets met both policies while they changed: on a
/// machine with little time to give, few do. The node's namespace is this thread's own and goes with it.
fn run(publishes: RangeInclusive<u64>, publish: impl Fn(&mut Node, &Plan)) -> Record {
    load::own_namespace();
    let pod = load::Pod::new();
    let mut node = Node::new();
    let mut record = Record::default();
    node.turn_to(0, &mut record, &|node, plan| node.publish(plan));
    let load = Load::start(&pod);
    load.wait_until_it_flows(|| node.kernel.counters().expect("counters").packets(Reason::NoRule) > 0);
    for turn in 1..=*publishes.end() {
        node.turn_to(turn as usize, &mut record, &publish);
        record.publishes = turn;
        if turn.is_multiple_of(BETWEEN_LOOKS) {
            load.pause(|| node.look(&mut record));
            if turn >= *publishes.start() && record.met_changes_of_both() {
                break;
            }
        }
    }
    load.stop();
    node.look(&mut record);
    record.compare(&node.kernel.counters().expect("counters"));
    record
}

/// A node with the program at its one pod's veth.
struct Node {
    kernel: Datapath,
    compiler: Compiler,
}

impl Node {
    fn new() -> Self {
        let room = u64::from(CONNECTIONS);
        let options = Options {
            limits: Limits { half_open: room, established: room, tombstones: room },
            connections: Some(CONNECTIONS),
            events: u64::from(u32::MAX),
            ..Options::default()
        };
        let kernel = Datapath::load(&options).expect("the program loads");
        Self { kernel, compiler: Compiler::new(policies::NODE, Mode::Enforce) }
    }

    /// What is in force in a turn, by a whole plan.
    fn turn_to(&mut self, turn: usize, record: &mut Record, publish: &impl Fn(&mut Self, &Plan)) {
        let cluster = policies::cluster(turn);
        let plan = self.compiler.plan(&cluster, &cluster.policies, &cluster.staged).expect("numbers are left");
        record.learn(&plan.table.rules);
        publish(self, &plan);
        self.compiler.adopt(&plan);
        let places = self.kernel.tables().places();
        let place = places.values().find(|place| &*place.uid == POD_UID).expect("the pod is covered");
        record.published(epoch_of(place.word), turn);
    }

    fn publish(&mut self, plan: &Plan) {
        let mut plan = plan.clone();
        self.kernel.number(&mut plan).expect("an ordinal");
        let pods = plan.table.endpoints.values().map(|endpoint| (&endpoint.uid, &endpoint.addresses[..]));
        let found = discover(&Ignored::default()).expect("links");
        let bindings = bind(&found, pods, &BTreeMap::new());
        assert!(bindings.bound.contains_key(POD_UID), "{found:?}");
        let published = self.kernel.publish(&plan, &bindings).expect("it fits");
        assert!(published.not_attached.is_empty(), "{published:?}");
    }

    /// Takes out what was kept of the packets up to now, and reads the events.
    fn look(&mut self, record: &mut Record) {
        let began = Instant::now();
        loop {
            let events = self.kernel.events(1 << 14);
            let more = events.len() == 1 << 14;
            events.iter().for_each(|event| record.event(event));
            if !more || began.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        let (sweep, tables) = self.kernel.sweep();
        for entry in sweep.drain(tables).expect("the connection table") {
            record.entry(&entry);
        }
    }
}
