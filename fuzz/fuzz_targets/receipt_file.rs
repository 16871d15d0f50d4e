//! Fuzzes ReceiptFile in JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::receipt_file(bytes));
