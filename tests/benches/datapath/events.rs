//! How many events a second a reader takes out of the ring buffer, decoded.

use aya::programs::{TestRun, TestRunOptions};
use datapath::{Datapath, Options, UnknownPod};
use flow::{Address, Direction, TCP};
use std::time::{Duration, Instant};
use tests::frame::{Frame, transport};

/// Events in the ring at once.
const FILL: u32 = 20_000;
const ROUNDS: usize = 9;

pub(crate) fn main() {
    let options = Options { events: u64::MAX, unknown_pod: UnknownPod::Deny, ..Options::default() };
    let mut datapath = Datapath::load(&options).expect("the program loads");
    let (from, to) = (Address::v4([10, 1, 0, 9]), Address::v4([10, 1, 0, 2]));
    let frame = Frame::new(from, to, TCP, transport(TCP, 40_000, 80, 2, 0)).bytes();
    let mut rates: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| {
            let program = datapath.program(Direction::Inbound).expect("loaded");
            let options = TestRunOptions { data_in: Some(&frame), repeat: FILL, ..TestRunOptions::new() };
            let made = program.test_run(options).expect("a test run").duration;
            let (begin, mut read) = (Instant::now(), 0);
            while read < FILL as usize {
                let events = datapath.events(4_096).len();
                assert!(events > 0, "{read} events of {FILL}");
                read += events;
            }
            (rate(begin.elapsed() / FILL), rate(made))
        })
        .collect();
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (read, made) = rates[ROUNDS / 2];
    println!(
        "Events: a reader takes {read:.1} million a second; the program, denying each packet of an unknown pod with \
         an event, makes {made:.1} million a second"
    );
}

/// Millions a second.
fn rate(each: Duration) -> f64 {
    1e3 / each.as_nanos().max(1) as f64
}
