//! Fuzzes `IndexerToHost`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::indexer_to_host(bytes));
