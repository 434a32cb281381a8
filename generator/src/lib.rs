//! Graph, policies, their proof.
#![forbid(unsafe_code)]
