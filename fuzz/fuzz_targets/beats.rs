//! Fuzzes datagrams of heartbeats, and the list of sessions that an indexer keeps.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::beats(bytes));
