//! The `podfence` command: reads what was typed, runs the verb, and ends with its exit status.
#![forbid(unsafe_code)]

mod cluster;
mod demo;
mod ending;
mod escape;
mod files;
mod flows;
mod generate;
mod graph;
mod laboratory;
mod learned;
mod observe;
mod output;
mod scenarios;
mod shell;
mod tap;
mod typed;
mod watch;
mod when;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = typed::Command::parse();
    match command.verb {
        typed::Verb::LabPod(typed) => lab::pod::main(typed.words.into_iter()),
        verb => ending::ExitStatus::of(run(verb)).into(),
    }
}

fn run(verb: typed::Verb) -> miette::Result<ending::Ending> {
    match verb {
        typed::Verb::Demo(typed) => demo::run(&typed),
        typed::Verb::Lab(typed) => laboratory::run(&typed),
        typed::Verb::Observe(typed) => observe::run(&typed),
        typed::Verb::Graph(typed) => graph::run(&typed),
        typed::Verb::Generate(typed) => generate::run(&typed),
        typed::Verb::Flows(typed) => flows::run(typed),
        typed::Verb::Completion(typed) => shell::completion(&typed),
        typed::Verb::Man(typed) => shell::man(&typed),
        typed::Verb::LabPod(_) => Ok(ending::Ending::Done),
    }
}
