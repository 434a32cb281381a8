//! Tests that cross crates, and the benchmarks.
#![forbid(unsafe_code)]
