//! From what was seen to policies that allow just that, with their proof: graph, policies,
//! evidence beside every rule, and a certificate of how complete the learning was.
//!
//! Always holds: what [`synthesize`] returns was verified with the reference evaluator (laws 1 and
//! 2), whatever else it opens or leaves out is listed, and the same input gives the same bytes
//! (law 8). No IO, no clock, no randomness.
//!
//! ```text
//! Ledger ─► Lessons ─► Openings ─► PolicySet ─► minimize ─► verify ─► Generated ─► files
//! Cluster ─► Subjects ──┘                                             ├ Evidence
//!                                                                     └ Certificate
//! ```
#![forbid(unsafe_code)]

mod blocks;
pub mod certificate;
pub mod closed;
pub mod evidence;
pub mod explain;
pub mod graph;
pub mod lessons;
pub mod minimize;
pub mod named;
pub mod naming;
pub mod openings;
pub mod outside;
pub mod price;
pub mod ranges;
pub mod refused;
pub mod render;
pub mod routes;
pub mod subjects;
pub mod synthesize;
pub mod verify;

pub use certificate::Certificate;
pub use closed::{Closed, DEFAULT_DENY};
pub use evidence::Evidence;
pub use graph::CommunicationGraph;
pub use lessons::{Basis, LeftOut, Lesson, Lessons};
pub use minimize::minimize;
pub use model::routes::Routes;
pub use openings::{Opening, Openings, Way, Wider};
pub use outside::{Outside, Providers};
pub use price::Price;
pub use refused::Refused;
pub use subjects::{Subject, Subjects};
pub use synthesize::{Generated, Nodes, Options, PeerScope, synthesize};
