//! Fuzzes `LogSeen`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::log_seen(bytes));
