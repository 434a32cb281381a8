//! The shared language above packets: cluster objects, selectors, NetworkPolicy and what it means,
//! flow records, edges, ledgers, and who owned an address when. No IO, no clock, no randomness.
#![forbid(unsafe_code)]

pub mod cidr;
pub mod cluster;
pub mod drawing;
pub mod escape;
pub mod history;
pub mod labels;
pub mod ledger;
mod ownership;
pub mod policy;
pub mod ports;
pub mod record;
pub mod reference;
pub mod routes;
mod services;
mod stand_ins;
pub mod tenure;
pub mod view;
pub mod yaml;
