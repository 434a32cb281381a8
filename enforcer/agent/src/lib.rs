//! The node daemon's loop: what the cluster says becomes tables, what the kernel says becomes the log.
#![forbid(unsafe_code)]
