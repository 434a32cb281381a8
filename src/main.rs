//! The `podfence` command: reads what was typed, runs the verb, and ends with its exit status.
#![forbid(unsafe_code)]

mod cluster;
mod ending;
mod escape;
mod files;
mod flows;
mod generate;
mod graph;
mod learned;
mod observe;
mod output;
mod shell;
mod typed;
mod when;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    ending::ExitStatus::of(run(typed::Command::parse())).into()
}

fn run(command: typed::Command) -> miette::Result<ending::Ending> {
    match command.verb {
        typed::Verb::Observe(typed) => observe::run(&typed),
        typed::Verb::Graph(typed) => graph::run(&typed),
        typed::Verb::Generate(typed) => generate::run(&typed),
        typed::Verb::Flows(typed) => flows::run(typed),
        typed::Verb::Completion(typed) => shell::completion(&typed),
        typed::Verb::Man(typed) => shell::man(&typed),
    }
}
