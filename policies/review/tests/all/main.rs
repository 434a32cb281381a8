//! What the public way in promises, through it.

mod reach;
mod why;
mod world;
