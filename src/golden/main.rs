//! The command as a person meets it: the built binary, what was typed, what was printed, its exit status.

mod asking;
mod diff;
mod errors;
mod learning;
mod story;
mod world;
