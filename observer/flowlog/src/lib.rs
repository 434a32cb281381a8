//! The flow log: schema, writer, retention, and reading it back.
#![forbid(unsafe_code)]
