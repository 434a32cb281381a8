//! The command as a person meets it: the built binary, what was typed, what was printed, its exit status.

mod asking;
mod diff;
mod enforcing;
mod errors;
mod learning;
mod lint;
mod pull_request;
mod reach;
mod replay;
mod story;
mod why;
mod world;
