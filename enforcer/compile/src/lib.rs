//! Policies and a cluster become kernel tables; changes become a plan.
#![forbid(unsafe_code)]
