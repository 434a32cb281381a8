//! What holds the model: the meaning of NetworkPolicy sentence by sentence, bad input case by case,
//! and the laws that lie in this crate (8, 10, 13, 14).

mod bad_input;
mod documents;
mod formats;
mod fuzzed;
mod history;
mod hostile;
mod ledger;
mod ownership;
mod random;
mod reading_on;
mod reference;
mod semantics;
mod stand_ins;
mod view;

use model::{cluster::Cluster, yaml::read_into};

/// A cluster out of YAML that must be right.
fn cluster(yaml: &str) -> Cluster {
    let mut cluster = Cluster::default();
    if let Err(error) = read_into(&mut cluster, "test.yaml", yaml) {
        panic!("{error}\n{yaml}");
    }
    cluster
}
