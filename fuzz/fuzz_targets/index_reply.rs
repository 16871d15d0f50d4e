//! Fuzzes `IndexReply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::index_reply(bytes));
