//! Loads, attaches and publishes; reads events and counters.

