//! Stub while the parser is written.
