//! Fuzzes the task spec in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::task_json(bytes));
