//! The `podfence` command.
fn main() {}
