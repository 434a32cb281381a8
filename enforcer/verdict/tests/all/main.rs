//! [`verdict::decide`] by example and by law, over tables in memory.

mod clients;
mod connections;
mod expiry;
mod fragments;
mod further;
mod law5;
mod neighbors;
mod openings;
mod pod;
