//! How many vouchers one core checks in a second: `cargo run --release -p welkin-proto --example vouchers`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement stops at the first surprise, reads a clock and prints what it found"
)]

use std::time::{Duration, Instant};

use welkin_proto::{AccountKey, Domain, SignedByAccount, Voucher};
use welkin_types::{AccountId, LeaseId, Usd};

/// As many buyers as signed them, so that nothing is gained by having seen a key before.
const BUYERS: u8 = 64;
/// How long is measured in all, and into how many parts; the median part counts.
const PARTS: usize = 20;
const PART: Duration = Duration::from_millis(100);

fn main() {
    let domain = Domain::LOCAL;
    let vouchers: Vec<_> = (1..=BUYERS)
        .map(|number| {
            let key = AccountKey::from_secret(&[number; 32]).unwrap();
            let message = Voucher {
                lease: LeaseId::from_bytes([number; 16]),
                operator: AccountId::from_bytes([number; 20]),
                amount: Usd::from_micros(1_000 + u64::from(number)),
                seconds: 60,
            };
            (key.id(), SignedByAccount::sign(&domain, &key, message).unwrap())
        })
        .collect();
    let mut rates = Vec::with_capacity(PARTS);
    for _ in 0..PARTS {
        let (began, mut done) = (Instant::now(), 0_u32);
        while began.elapsed() < PART {
            for (buyer, voucher) in &vouchers {
                assert_eq!(voucher.signer(&domain), Ok(*buyer));
            }
            done += u32::from(BUYERS);
        }
        rates.push(f64::from(done) / began.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    println!("RESULT voucher-verify per_s_per_core={:.0}", rates[PARTS / 2]);
}
