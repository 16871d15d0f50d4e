//! Fuzzes `SettleCall`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::settle_call(bytes));
