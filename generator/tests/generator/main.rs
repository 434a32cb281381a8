//! What the generator promises, over its public face: the laws over random scenes, and stories that
//! name one thing each.

mod closed;
mod evidence;
mod laws;
mod minimal;
mod minimize;
mod refusals;
mod scenes;
mod stories;
mod wider;
