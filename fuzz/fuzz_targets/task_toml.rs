//! Fuzzes the task spec in TOML.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::task_toml(bytes));
