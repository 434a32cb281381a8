//! What tests across crates share: frames, a rig for the loaded program, a lab with an
//! agent, and the word on privilege.
#![forbid(unsafe_code)]

pub mod frame;
pub mod privilege;
pub mod random;
pub mod rig;
pub mod story;
pub mod wire;
