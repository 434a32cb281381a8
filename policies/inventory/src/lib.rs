//! Fills the view of who owned an address when, from files.
#![forbid(unsafe_code)]
