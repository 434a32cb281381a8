//! The lab, brought up and taken down for real. Needs root.

use lab::{Error, Lab, LabPod, Options, Outcome, Scenario};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
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

#[test]
fn shop_plays_every_edge_and_an_address_changes_hands_within_seconds() {
    let Some(options) = options() else { return };
    let scenario = scenario("shop");
    let begun = Instant::now();
    let lab = Lab::up(&scenario, &options).unwrap();
    println!("up in {:?}, {} pods", begun.elapsed(), lab.pods().len());

    let begun = Instant::now();
    let outcomes = lab.round(&mut |_| ()).unwrap();
    println!("a round of {} calls in {:?}", outcomes.len(), begun.elapsed());
    let failed: Vec<String> = outcomes.iter().filter(|o| !o.answered()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{failed:#?}");

    let mut changes = 0;
    let report = lab.run(Duration::from_secs(8), &mut |_| changes += 1).unwrap();
    println!("{:?} in 8 s, {changes} changes", report.total());
    let failed: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for call in &scenario.calls {
        assert!(report.by_call.get(&call.id).is_some_and(|tally| tally.answered > 0), "{} never occurred", call.to);
    }

    let pods = lab.pods();
    let dead = pods.iter().find(|pod| pod.workload.name == "promo" && pod.ended.is_some()).unwrap();
    let heir = pods.iter().find(|pod| pod.uid != dead.uid && pod.addresses == dead.addresses).unwrap();
    assert_eq!(heir.workload.name, "reviews");
    let pause = heir.started.duration_since(dead.ended.unwrap().at);
    assert!(pause.is_positive() && pause.as_secs() < 3, "{pause:?}");
    assert!(pods.iter().any(|pod| pod.workload.kind == "CronJob" && pod.ended.is_some()));
    whose_address_it_was_depends_on_the_time(&lab, dead, heir);

    for attack in &scenario.attacks {
        for outcome in lab.attack(attack).unwrap() {
            assert!(outcome.answered(), "nothing enforces, so an attack succeeds: {outcome}");
        }
    }
    lab.down();
    nothing_is_left(&options);
}

fn whose_address_it_was_depends_on_the_time(lab: &Lab, dead: &LabPod, heir: &LabPod) {
    let cluster = lab.cluster().unwrap();
    let view = model::view::AddressView::new(&cluster);
    let who = |at: jiff::Timestamp| {
        let nanos = i64::try_from(at.as_nanosecond()).unwrap();
        view.end(dead.addresses[0], 8080, nanos).pod_uid.map(|uid| uid.to_string())
    };
    assert_eq!(who(dead.started), Some(dead.uid.clone()));
    assert_eq!(who(heir.started), Some(heir.uid.clone()));
}

#[test]
fn a_pod_that_does_not_come_up_is_named_with_its_log_and_nothing_is_left() {
    let Some(mut options) = options() else { return };
    options.pod_command = vec!["/bin/sh".into(), "-c".into(), "echo no address today; exit 3".into()];
    let error = Lab::up(&scenario("tiny"), &options).unwrap_err().to_string();
    assert!(error.starts_with("pod ") && error.contains("exit status: 3 no address today"), "{error}");
    nothing_is_left(&options);
}

#[test]
fn a_request_to_stop_while_it_comes_up_leaves_nothing() {
    let Some(options) = options() else { return };
    options.stop.store(true, Ordering::Relaxed);
    assert!(matches!(Lab::up(&scenario("tiny"), &options), Err(Error::Interrupted)));
    nothing_is_left(&options);
}

#[test]
fn a_panic_in_the_middle_of_a_run_leaves_nothing() {
    let Some(options) = options() else { return };
    let scenario = scenario("shop");
    let panicked = std::panic::catch_unwind(|| {
        let lab = Lab::up(&scenario, &options).unwrap();
        lab.run(Duration::from_secs(20), &mut |_| panic!("whoever is told of changes fails"))
    });
    assert!(panicked.is_err());
    nothing_is_left(&options);
}

#[test]
fn ctrl_c_in_the_middle_of_a_run_leaves_nothing() {
    let Some(options) = options() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut player = player(&options);
        kill(Pid::from_raw(player.id().cast_signed()), signal).unwrap();
        assert!(!player.wait().unwrap().success());
        nothing_is_left(&options);
    }
}

#[test]
fn what_a_killed_lab_left_goes_with_down_or_with_the_next_lab_of_that_name() {
    let Some(options) = options() else { return };
    let name = options.name.clone().unwrap();
    killed(&options);
    assert!(lab::leftovers(Some(&name)).iter().any(|what| what.starts_with("process")));
    lab::down(&name).unwrap();
    nothing_is_left(&options);
    assert!(matches!(lab::down(&name), Err(Error::NotUp { .. })));

    killed(&options);
    let lab = Lab::up(&scenario("tiny"), &options).unwrap();
    assert!(matches!(Lab::up(&scenario("tiny"), &options), Err(Error::Busy { .. })), "one that lives is left alone");
    assert!(lab.round(&mut |_| ()).unwrap().iter().all(lab::CallOutcome::answered));
    drop(lab);
    nothing_is_left(&options);
}

#[test]
fn a_detached_lab_stays_up_until_another_process_takes_it_down() {
    let Some(options) = options() else { return };
    let name = options.name.clone().unwrap();
    Lab::up(&scenario("tiny"), &options).unwrap().detach().unwrap();
    assert!(matches!(Lab::up(&scenario("tiny"), &options), Err(Error::Busy { .. })));
    let again = Lab::attach(&name, &options).unwrap();
    assert!(again.round(&mut |_| ()).unwrap().iter().all(lab::CallOutcome::answered));
    drop(again);
    assert!(!lab::leftovers(Some(&name)).is_empty());
    lab::down(&name).unwrap();
    nothing_is_left(&options);
}

/// `lab-play` on `tiny`, once it is up.
fn player(options: &Options) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab-play"))
        .arg(examples().join("tiny"))
        .args([options.name.as_deref().unwrap(), "60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let first = BufReader::new(child.stdout.take().unwrap()).lines().next();
    assert!(matches!(&first, Some(Ok(line)) if line.starts_with("up: 3 pods")), "{first:?}");
    child
}

fn killed(options: &Options) {
    let mut player = player(options);
    player.kill().unwrap();
    player.wait().unwrap();
}

#[test]
fn a_kept_connection_carries_all_calls_and_a_new_one_each_its_own() {
    let Some(options) = options() else { return };
    for (connection, kept) in [("kept", true), ("new", false)] {
        let read = |name: &str| std::fs::read_to_string(examples().join("tiny").join(name)).unwrap();
        let traffic = read("traffic.yaml").replace("every: 200ms", &format!("every: 50ms, connection: {connection}"));
        let folder = examples().join("tiny");
        let scenario =
            Scenario::parse("tiny", &folder, ("cluster.yaml", &read("cluster.yaml")), ("traffic.yaml", &traffic))
                .unwrap();
        let lab = Lab::up(&scenario, &options).unwrap();
        let report = lab.run(Duration::from_secs(1), &mut |_| ()).unwrap();
        assert!(report.total().answered > 10 && report.total().failed == 0, "{report:?}");
        let web = lab.pods().into_iter().find(|pod| pod.workload.name == "web").unwrap();
        let sockets = sockets_to(&Path::new("/run/netns").join(&web.netns), 8080);
        assert_eq!(sockets == ["01"], kept, "{connection}: states {sockets:?}, 01 is established");
        lab.down();
        nothing_is_left(&options);
    }
}

/// States of the IPv4 TCP sockets of a namespace whose peer has this port.
fn sockets_to(netns: &Path, port: u16) -> Vec<String> {
    std::thread::scope(|scope| {
        let table = scope.spawn(|| {
            lab::enter(netns).unwrap();
            std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap()
        });
        let table = table.join().unwrap();
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row[2].ends_with(&format!(":{port:04X}"))).map(|row| row[3].to_owned()).collect()
    })
}
