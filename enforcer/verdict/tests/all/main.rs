//! [`verdict::decide`] by example and by law, over tables in memory.

mod connections;
mod law5;
mod neighbors;
mod openings;
mod pod;
