//! The lab, brought up and taken down for real. Needs root.

use lab::{Attack, Error, Expect, Lab, Options, Outcome, Scenario, Stage};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/examples")
}

fn scenario(name: &str) -> Scenario {
    Scenario::load(&examples().join(name)).unwrap()
}

/// Options with a name of their own; `None`, said aloud, where labs are not permitted.
fn options() -> Option<Options> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if let Err(why) = lab::permitted() {
        let required = std::env::var("PODFENCE_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|what| what == "kernel"), "PODFENCE_REQUIRE=kernel, and {why}");
        println!("skipped: {why}");
        return None;
    }
    let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let pod_command = vec![env!("CARGO_BIN_EXE_lab-pod").into()];
    Some(Options { name: Some(name), pod_command, ..Options::default() })
}

fn nothing_is_left(options: &Options) {
    let left = lab::leftovers(options.name.as_deref());
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn every_call_of_a_round_is_answered_over_both_families_and_nothing_is_left() {
    let Some(options) = options() else { return };
    let scenario = scenario("tiny");
    let lab = Lab::up(&scenario, &options).unwrap();
    assert!(!lab::leftovers(options.name.as_deref()).is_empty(), "what is up can be seen");
    let outcomes = lab.round(&mut |_| ()).unwrap();
    assert_eq!(outcomes.len(), 2);
    for outcome in &outcomes {
        assert!(outcome.answered(), "{outcome}");
        let Outcome::Answered { by: Some(by) } = &outcome.outcome else { panic!("{outcome} by nobody") };
        assert!(by.starts_with("shop/api-"), "{outcome} by {by}");
    }
    lab.down();
    nothing_is_left(&options);
}
