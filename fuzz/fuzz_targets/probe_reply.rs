//! Fuzzes `Signed<ProbeReply>`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| welkin_fuzz::probe_reply(bytes));
