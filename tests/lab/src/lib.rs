//! A cluster out of network namespaces.
#![forbid(unsafe_code)]

mod control;
mod destination;
mod error;
mod names;
mod objects;
pub mod pod;
mod process;
mod resolve;
mod scenario;
pub mod traffic;

pub use control::{Outcome, Stage};
pub use destination::{Destination, Family, Host, Scheme};
pub use error::Error;
pub use scenario::*;
