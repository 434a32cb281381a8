//! What the public way in promises, through it.

mod reach;
mod replay;
mod why;
mod world;
