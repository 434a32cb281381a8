//! What tests across crates share: frames, a rig for the loaded program, a lab with an
//! agent, random clusters with a second evaluator of policies, a port scan, and the words on privilege and on how
//! much is tried.
#![forbid(unsafe_code)]

pub mod fraction;
pub mod identities;
pub mod objects;
pub mod privilege;
pub mod questions;
pub mod random;
pub mod rig;
pub mod scan;
pub mod second;
pub mod story;
pub mod wire;

pub use selftest::frame;
