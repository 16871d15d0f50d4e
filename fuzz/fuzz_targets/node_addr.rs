//! Fuzzes the text of a node's address.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::node_addr(bytes));
