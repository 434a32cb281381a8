//! What tests across crates share: frames, a rig for the loaded program, and the word on privilege.
#![forbid(unsafe_code)]

pub mod frame;
pub mod privilege;
pub mod random;
pub mod rig;
