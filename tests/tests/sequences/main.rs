//! Long random sequences of what happens to a node, on the loaded program: policies and labels come, change and go, pods
//! too, whose addresses are another's at once, Services, modes, namespaces that are being deleted, publishes that do not
//! fit, agents that are killed, entries that are lost. After each step new connections are tried and standing ones go on;
//! every verdict must be what the reference evaluator says of the cluster as it is then (laws 3 and 6).
//!
//! `PODFENCE_SEED` gives other sequences. One that goes wrong is cut down, by leaving steps out, before it is shown.

mod kernel;
mod meaning;
mod step;
mod world;

use kernel::{Bpffs, Kernel};
use proptest::{
    collection::vec,
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngSeed, TestRunner},
};
use std::{collections::BTreeMap, time::Instant};
use step::Step;
use tests::{privilege, random::Random};
use world::World;

const STEPS: usize = 10_000;
const STEPS_OF_A_SEQUENCE: usize = 400;
/// Replays that shrinking may take.
const REPLAYS: usize = 300;

const AGENT_KILLED: &str = "agent killed";
const DID_NOT_FIT: &str = "did not fit";
const POLICIES_KEPT: &str = "policies of an ending namespace kept";

const IN_PART: &str = "service allowed in part";
const CLIENT_ASKED: &str = "client asked at the server";

/// How often each answer was seen, by what was asked, and how often each of the rarer things happened.
type Seen = BTreeMap<(&'static str, bool), u64>;

#[test]
fn after_every_step_the_loaded_program_says_what_the_reference_says() {
    if !privilege::kernel("after_every_step_the_loaded_program_says_what_the_reference_says") {
        return;
    }
    let bpffs = Bpffs::mount();
    let links = kernel::links();
    let seed = Random::seed(6);
    let config = Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() };
    let mut runner = TestRunner::new(config);
    let mut seen = Seen::new();
    let began = Instant::now();
    for _ in 0..STEPS / STEPS_OF_A_SEQUENCE {
        let steps = vec(step::step(), STEPS_OF_A_SEQUENCE).new_tree(&mut runner).expect("steps").current();
        let mut replay = |steps: &[Step]| play(steps, &bpffs, &links, &mut seen);
        if let Err((at, wrong)) = replay(&steps) {
            let (steps, wrong) = shrunk(steps[..=at].to_vec(), wrong, &mut replay);
            let list: String = steps.iter().map(|step| format!("  {step}\n")).collect();
            panic!("{wrong}\nafter these {} steps (seed {seed}):\n{list}", steps.len());
        }
    }
    println!("{STEPS} steps in {} s: {seen:?}", began.elapsed().as_secs());
    let times = |what, allowed| seen.get(&(what, allowed)).copied().unwrap_or_default();
    for (what, least) in [("opening", 5_000), ("standing", 5_000), ("service", 2_000), ("staged", 5_000)] {
        for allowed in [false, true] {
            assert!(times(what, allowed) >= least, "{what}, allowed {allowed}: {} times", times(what, allowed));
        }
    }
    assert!(times(CLIENT_ASKED, false) >= 30, "{CLIENT_ASKED}: {} times", times(CLIENT_ASKED, false));
    for (what, least) in
        [(AGENT_KILLED, 20), (DID_NOT_FIT, 100), (POLICIES_KEPT, 20), (IN_PART, 40), (CLIENT_ASKED, 30)]
    {
        assert!(times(what, true) >= least, "{what}: {} times", times(what, true));
    }
}

/// A sequence on a fresh program. An error says at which step and what was wrong.
fn play(steps: &[Step], bpffs: &Bpffs, links: &[u32], seen: &mut Seen) -> Result<(), (usize, String)> {
    let mut kernel = Kernel::new(bpffs, links);
    let mut world = World::default();
    let mut outcome = Ok(());
    for (at, step) in steps.iter().enumerate() {
        world.take(step);
        let done = kernel.follow(&world, step, seen);
        if let Err(wrong) = done.and_then(|()| kernel.hold(at, seen)) {
            outcome = Err((at, wrong));
            break;
        }
    }
    kernel.end();
    outcome
}

/// Leaves out ever smaller parts, as long as something goes wrong.
fn shrunk(
    mut steps: Vec<Step>,
    mut wrong: String,
    play: &mut impl FnMut(&[Step]) -> Result<(), (usize, String)>,
) -> (Vec<Step>, String) {
    let (mut part, mut replays) = (steps.len().div_ceil(2), 0);
    loop {
        let mut from = 0;
        while from < steps.len() && replays < REPLAYS {
            let fewer = [&steps[..from], &steps[(from + part).min(steps.len())..]].concat();
            replays += 1;
            match play(&fewer) {
                Err((at, still)) => (steps, wrong) = (fewer[..=at].to_vec(), still),
                Ok(()) => from += part,
            }
        }
        if part == 1 {
            return (steps, wrong);
        }
        part = part.div_ceil(2);
    }
}
