//! Fuzzes `Signed<Sheet>`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::sheet(bytes));
