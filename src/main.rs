//! The `podfence` command: reads what was typed, runs the verb, and ends with its exit status.
#![forbid(unsafe_code)]

mod applied;
mod backing;
mod cluster;
mod demo;
mod detach;
mod diff;
mod ending;
mod enforce;
mod files;
mod flows;
mod generate;
mod graph;
mod laboratory;
mod learned;
mod ledger;
mod lint;
mod manifests;
mod observe;
mod output;
mod reach;
mod replay;
mod scenarios;
mod selftest;
mod shell;
mod socket;
mod status;
mod tap;
mod typed;
mod watch;
mod when;
mod why;
mod why_kernel;

use clap::Parser as _;
use model::escape;
use std::process::ExitCode;

/// The verb by which a lab starts its pods; not for people, so that neither help nor completion has it.
const LAB_POD: &str = "lab-pod";

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|verb| verb == LAB_POD) {
        return lab::pod::main(words);
    }
    ending::ExitStatus::of(run(typed::Command::parse().verb)).into()
}

fn run(verb: typed::Verb) -> miette::Result<ending::Ending> {
    match verb {
        typed::Verb::Demo(typed) => demo::run(&typed),
        typed::Verb::Lab(typed) => laboratory::run(&typed),
        typed::Verb::Observe(typed) => observe::run(&typed),
        typed::Verb::Graph(typed) => graph::run(&typed),
        typed::Verb::Generate(typed) => generate::run(&typed),
        typed::Verb::Ledger(typed) => ledger::run(&typed),
        typed::Verb::Flows(typed) => flows::run(typed),
        typed::Verb::Why(typed) => why::run(&typed),
        typed::Verb::Replay(typed) => replay::run(&typed),
        typed::Verb::Lint(typed) => lint::run(&typed),
        typed::Verb::Diff(typed) => diff::run(&typed),
        typed::Verb::Reach(typed) => reach::run(&typed),
        typed::Verb::Enforce(typed) => enforce::run(&typed),
        typed::Verb::Detach(typed) => detach::run(&typed),
        typed::Verb::Status(typed) => status::run(&typed),
        typed::Verb::Selftest(typed) => selftest::run(&typed),
        typed::Verb::Completion(typed) => shell::completion(&typed),
        typed::Verb::Man(typed) => shell::man(&typed),
    }
}
