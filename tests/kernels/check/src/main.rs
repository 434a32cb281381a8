//! Loads the kernel program and prints what the verifier counted.
fn main() {}
