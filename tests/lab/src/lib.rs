//! A cluster out of network namespaces.
#![forbid(unsafe_code)]
