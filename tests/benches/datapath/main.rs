//! What enforcement costs, each figure beside its reference from the same run. `./run bench datapath`.
//!
//! - [`program`]: nanoseconds a packet of the loaded program in test runs, beside a program that only returns;
//! - [`veth`]: real sockets over veths, with payload outside the linear part and GSO, which test runs cannot
//!   make, beside no program and beside nftables rulesets that say the same;
//! - [`publish`]: compiling and publishing policies of a large cluster, and what the tables take;
//! - [`events`]: how many events a reader keeps up with.

mod events;
mod program;
mod publish;
mod veth;

use tests::privilege;

fn main() {
    if !privilege::kernel("bench datapath") {
        return;
    }
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let parts: [(&str, fn()); 4] =
        [("program", program::main), ("veth", veth::main), ("publish", publish::main), ("events", events::main)];
    for (name, part) in parts {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            part();
            println!();
        }
    }
}

/// Median, and the value below which 99 of 100 lie.
fn spread(mut values: Vec<u64>) -> (u64, u64) {
    values.sort_unstable();
    let at = |share: usize| values.get((values.len() * share / 100).min(values.len() - 1)).copied().unwrap_or_default();
    (at(50), at(99))
}
