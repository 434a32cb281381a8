//! Any bytes as a file of documents.
#![no_main]

#[path = "../../tests/all/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::documents(bytes));
