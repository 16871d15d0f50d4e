//! Fuzzes `HostToIndexer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::host_to_indexer(bytes));
