//! Any words as an event of the kernel's ring: reading them does not panic, and what was read is the same when it is
//! written and read again.
#![no_main]

use verdict::abi::{Event, EventRecord};

libfuzzer_sys::fuzz_target!(|words: EventRecord| {
    let Some(event) = Event::decode(&words) else { return };
    let mut again: EventRecord = [0; size_of::<EventRecord>() / 8];
    event.encode(|index, word| again[index] = word);
    assert_eq!(Event::decode(&again), Some(event));
    // All but the first word is told whole; of that one nothing is made up.
    assert_eq!(again[1..], words[1..]);
    assert_eq!(again[0] & !words[0], 0);
});
