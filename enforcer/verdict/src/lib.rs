//! decide: one pure function for the kernel program, the simulator and the tests.
#![no_std]
#![forbid(unsafe_code)]
