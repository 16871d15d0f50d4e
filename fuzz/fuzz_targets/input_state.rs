//! Fuzzes `InputState`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::input_state(bytes));
