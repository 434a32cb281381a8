//! Law 3, by the second evaluator: over random clusters, `decide` over the compiled tables lets through what
//! `tests::second` says, at the client's hook and at the server's; and a few of these clusters, brought up as network
//! namespaces with an agent, let through the same with real packets.
//!
//! `PODFENCE_SEED` is the seed, `PROPTEST_CASES` how many clusters the first takes.

mod arrivals;
mod tables;
mod world;

use arrivals::{Opening, arrivals};
use model::{cluster::Mode, policy::Protocol};
use proptest::prelude::*;
use std::{cell::Cell, collections::BTreeSet, time::Instant};
use tables::Node;
use tests::{
    objects::objects,
    questions::{over_random, question, questions},
    random::Random,
    second::{self, Who},
    story::{Applied, InKernel, Watch, alone, lab_of},
};
use verdict::Reason;
use world::{World, everybody, openings};

const CLUSTERS: u32 = 4_000;
/// Clusters that are played.
const PLAYED: usize = 6;

#[test]
fn the_compiled_tables_say_what_the_second_evaluator_says() {
    let tally = Tally::default();
    over_random(CLUSTERS, objects(), |objects| {
        let node = Node::of(&objects.to_string());
        for (from, to, probes) in questions(&objects.0) {
            for (protocol, ports) in probes {
                let name = protocol.map(Protocol::name);
                for port in ports {
                    let expected = match case(from, to) {
                        Case::Judged => {
                            [second::leaves, second::enters].map(|half| half(&objects.0, from, to, name, port))
                        }
                        Case::OwnNode => [true; 2],
                        other => {
                            tally.skip(other);
                            continue;
                        }
                    };
                    let answers = node.opening(from, to, protocol, port);
                    for (expected, answer) in expected.into_iter().zip(answers) {
                        let Some(reason) = answer else { continue };
                        tally.answer(reason);
                        let is_right = reason.allows() == expected
                            && (reason == Reason::OwnNode) == (case(from, to) == Case::OwnNode);
                        prop_assert!(
                            is_right,
                            "{:?}, meant {}: {}",
                            reason,
                            expected,
                            question(from, to, protocol, port)
                        );
                    }
                }
            }
        }
        Ok(())
    });
    tally.print();
}

#[test]
fn real_packets_arrive_where_the_second_evaluator_says() {
    let _alone = alone();
    let test = "real_packets_arrive_where_the_second_evaluator_says";
    // Much is allowed in them and much is not.
    let is_telling = |world: &World| world.open_percent().is_some_and(|open| (20..=80).contains(&open));
    let mut denied = BTreeSet::new();
    for world in World::all(Random::seed(5)).filter(is_telling).take(PLAYED) {
        let begun = Instant::now();
        let Some(lab) = lab_of(test, &world.scenario()) else { return };
        let (ends, hosts) = everybody(&lab);
        let asked = openings(&ends);
        let expected = world.expected(&ends, &asked);
        let watch = Watch::start(&lab, datapath::Options::default());
        let held = InKernel::held();

        // The contrast: without policies everything arrives.
        same(&world, &arrivals(&hosts, &asked, &asked), &asked);
        assert_eq!(watch.dropped(), 0);
        watch.apply(Applied { mode: Mode::Enforce, policies: world.policies(), ..Applied::default() });
        same(&world, &arrivals(&hosts, &asked, &expected), &expected);
        assert!(watch.dropped() > 0);

        denied.extend(asked.difference(&expected).map(|opening| opening.protocol));
        let (name, [asked, open]) = (lab.name().to_owned(), [asked.len(), expected.len()]);
        println!("{} hosts: {open} of {asked} openings pass, after {:?}", hosts.len(), begun.elapsed());
        drop(watch.stop());
        lab.down();
        assert!(lab::leftovers(Some(&name)).is_empty());
        assert_eq!(held.left(), InKernel::default(), "no program and no link is left");
    }
    assert_eq!(denied, Protocol::ALL.into_iter().collect(), "some of each protocol were denied");
}

fn same(world: &World, arrived: &BTreeSet<Opening>, meant: &BTreeSet<Opening>) {
    let (missing, leaked) = (meant - arrived, arrived - meant);
    let lines = |openings: &BTreeSet<Opening>| openings.iter().map(|one| format!("\n  {one}")).collect::<String>();
    let (missing, leaked) = (lines(&missing), lines(&leaked));
    assert!(missing.is_empty() && leaked.is_empty(), "missing:{missing}\nleaked:{leaked}\n{world}");
}

/// What a question is to a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Case {
    /// Policies judge it.
    Judged,
    /// The node's own packet to its pod: passed.
    OwnNode,
    /// No policy judges what a pod says to itself, and it crosses no hook.
    Itself,
    /// Exempt in the reference; at the hook a node's address is judged as any other, and asked about as such.
    ToOwnNode,
}

fn case(from: Who<'_>, to: Who<'_>) -> Case {
    match (from, to) {
        (Who::Pod(one, _), Who::Pod(other, _)) if std::ptr::eq(one, other) => Case::Itself,
        (_, Who::OwnNode) => Case::ToOwnNode,
        (Who::OwnNode, _) => Case::OwnNode,
        _ => Case::Judged,
    }
}

/// How much was asked, and what was left out.
#[derive(Default)]
struct Tally {
    allowed: Cell<u64>,
    denied: Cell<u64>,
    itself: Cell<u64>,
    to_own_node: Cell<u64>,
}

impl Tally {
    fn answer(&self, reason: Reason) {
        let count = if reason.allows() { &self.allowed } else { &self.denied };
        count.update(|n| n + 1);
    }

    fn skip(&self, case: Case) {
        let count = if case == Case::Itself { &self.itself } else { &self.to_own_node };
        count.update(|n| n + 1);
    }

    fn print(&self) {
        let [allowed, denied, itself, to_own_node] =
            [&self.allowed, &self.denied, &self.itself, &self.to_own_node].map(Cell::get);
        println!(
            "{allowed} verdicts allow, {denied} deny; left out: {itself} of a pod to itself, {to_own_node} to its node"
        );
        assert!(allowed > 0 && denied > 0, "both are asked about");
    }
}
