//! What the public way in promises, through it.

mod diff;
mod lint;
mod map;
mod reach;
mod replay;
mod schema;
mod why;
mod world;
