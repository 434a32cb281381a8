//! A cluster out of network namespaces: a scenario folder becomes pods with their own addresses, real servers and real
//! traffic. The demo and the kernel tests run on it.
//!
//! ```text
//! Scenario::load(folder) ─► Lab::up ─► run / round / attack ─► down
//! ```
//!
//! Everything it makes is in namespaces of its own, and goes when the [`Lab`] goes: after a failure, after Ctrl-C
//! ([`stop_on_signals`]), and, where the process was killed, by [`down`] or the next lab of the same name.
#![forbid(unsafe_code)]

mod control;
mod destination;
mod drive;
mod error;
mod lab;
mod lifecycle;
mod names;
pub mod network;
mod objects;
mod plan;
pub mod pod;
mod process;
mod resolve;
mod scenario;
mod state;
pub mod traffic;
mod translate;
mod world;

pub use control::{Outcome, Stage};
pub use destination::{Destination, Family, Host, Scheme};
pub use drive::{CallOutcome, RunReport, Tally};
pub use error::Error;
pub use lab::{Lab, Options, pod_program, stop_on_signals};
pub use network::enter;
pub use scenario::{
    Attack, ExpectedEdge, NodePlan, Party, PlannedCall, PlannedEvent, PlannedJob, Scenario, Served, Server,
};
pub use state::{down, leftovers, name_of, names};
pub use traffic::{Connection, Expect};
pub use world::{Ended, Ending, LabPod};

/// What a lab needs and this machine or user lacks: `Ok` where one can be brought up.
pub fn permitted() -> Result<(), Error> {
    network::permitted()
}
