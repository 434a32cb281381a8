//! A cluster out of network namespaces.
#![forbid(unsafe_code)]
pub mod pod { /// x
pub fn main(_: impl Iterator<Item = std::ffi::OsString>) -> std::process::ExitCode { std::process::ExitCode::SUCCESS } }
