//! `./run soak`: pods come and go under traffic on a node in enforce, for half an hour or as long as `--minutes` says. At
//! the end nothing may be left of the pods that went, in the kernel or in the agent, and no verdict may have been wrong.
//!
//! Namespaces belong to threads and the agent is a child, so that all of it ends with this process.

mod agent;
mod pod;

use agent::{Agent, Held};
use pod::{Node, Pod, Role, Tally};
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};
use tests::{privilege, story::InKernel};

const MINUTES: u64 = 30;
/// 100 pods a minute.
const BETWEEN_PODS: Duration = Duration::from_millis(600);
/// Pods that live at once, the steady ones apart.
const LIVING: usize = 12;
/// An address rests for as many pods before another pod has it: longer than the agent takes to look.
const RESTING: u32 = 8;
/// Memory is measured against what it is after this part of the time.
const WARM_UP_PART: u32 = 4;
const BETWEEN_LINES: Duration = Duration::from_secs(30);
/// What the agent's own memory may grow by after the warm-up. Pages of its file come as code first runs.
const GROWTH_KIB: u64 = 8 * 1024;
/// What it may take in all.
const BUDGET_KIB: u64 = 60_000;

fn main() -> ExitCode {
    let (minutes, command) = typed();
    if !privilege::kernel("soak") {
        return ExitCode::SUCCESS;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = soak(Duration::from_secs(minutes * 60), &command, folder.path());
    wrong.iter().for_each(|line| println!("wrong: {line}"));
    if wrong.is_empty() {
        println!("nothing leaked, no verdict was wrong");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

/// `[--minutes N] [--command FILE]`
fn typed() -> (u64, PathBuf) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let of = |name: &str| arguments.iter().position(|at| at == name).and_then(|at| arguments.get(at + 1));
    let beside = || std::env::current_exe().ok().and_then(|this| Some(this.parent()?.join("podfence")));
    let command = of("--command").map(PathBuf::from).or_else(beside).expect("a command beside this one");
    (of("--minutes").map_or(MINUTES, |minutes| minutes.parse().expect("--minutes N")), command)
}

fn soak(time: Duration, command: &Path, folder: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let node = Node::new();
    let objects = folder.join("cluster");
    fs::create_dir(&objects).expect("a folder");
    fs::write(objects.join("cluster.json"), pod::cluster()).expect("a file");
    let tally = Tally::default();
    let server = Pod::start(&node, &objects, 0, Role::Server, 0, &tally);
    let agent = Agent::start(command, folder);
    agent.wait_until("the server is covered", || agent.held().links == 2, &mut wrong);
    let steady = Pod::start(&node, &objects, 1, Role::Allowed, 1, &tally);
    agent.wait_until(
        "the steady pod is covered and served",
        || agent.held().links == 4 && tally.served() > 0,
        &mut wrong,
    );
    thread::sleep(Duration::from_secs(2));
    let before = agent.held();
    println!("before: {before}");

    let (began, mut told, mut warm) = (Instant::now(), Instant::now(), None);
    let mut living: VecDeque<Pod> = VecDeque::new();
    let mut started = 1;
    while began.elapsed() < time && agent.is_running() {
        let next = Instant::now() + BETWEEN_PODS;
        started += 1;
        if living.len() == LIVING
            && let Some(oldest) = living.pop_front()
        {
            oldest.end(&objects);
        }
        let role = if started % 2 == 0 { Role::Allowed } else { Role::Denied };
        let address = 2 + started % (LIVING as u32 + RESTING);
        living.push_back(Pod::start(&node, &objects, started, role, address, &tally));
        if warm.is_none() && began.elapsed() > time / WARM_UP_PART {
            warm = Some(agent.held());
        }
        if told.elapsed() > BETWEEN_LINES {
            told = Instant::now();
            println!("{:4} s: {} pods so far; {}; {tally}", began.elapsed().as_secs(), started - 1, agent.held());
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    if !agent.is_running() {
        wrong.push("the agent ended".to_owned());
    }
    living.into_iter().for_each(|pod| pod.end(&objects));
    let after = settled(&agent, &before);
    println!("after: {after}; {} pods came and went; {tally}", started - 1);
    compare(&before, &warm.unwrap_or_default(), &after, &mut wrong);
    wrong.extend(tally.wrong());

    let in_kernel = InKernel::held_by(agent.process());
    agent.stop();
    let left = in_kernel.left();
    if left != InKernel::default() {
        wrong.push(format!("the kernel kept, after the agent: {left:?}"));
    }
    steady.end(&objects);
    server.end(&objects);
    wrong
}

/// What the agent holds when it has seen that the pods are gone, or after a minute.
fn settled(agent: &Agent, before: &Held) -> Held {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = agent.held();
        if now.is_no_more_than(before) || Instant::now() > deadline {
            return now;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn compare(before: &Held, warm: &Held, after: &Held, wrong: &mut Vec<String>) {
    if !after.is_no_more_than(before) {
        wrong.push(format!("left behind: {after}, before {before}"));
    }
    if after.own_kib > warm.own_kib + GROWTH_KIB {
        wrong.push(format!("memory grew from {} KiB to {} KiB", warm.own_kib, after.own_kib));
    }
    if after.resident_kib > BUDGET_KIB {
        wrong.push(format!("memory is {} KiB, the budget {BUDGET_KIB} KiB", after.resident_kib));
    }
}
