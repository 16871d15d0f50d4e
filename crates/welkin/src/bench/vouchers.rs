//! How many vouchers one core checks in a second.

use std::time::{Duration, Instant};

use welkin_proto::{AccountKey, Domain, SignedByAccount, Voucher};
use welkin_types::{AccountId, LeaseId, Usd};

/// As many buyers as signed them, so that nothing is gained by having seen a key before.
const BUYERS: u8 = 64;
/// How long is measured in all, and into how many parts; the median part counts.
const PARTS: usize = 20;
const PART: Duration = Duration::from_millis(100);

/// Hashes vouchers by EIP-712 and finds who signed them, on one thread.
pub(crate) fn verify() -> anyhow::Result<String> {
    let domain = Domain::LOCAL;
    let vouchers = (1..=BUYERS).map(|number| {
        let key = AccountKey::from_secret(&[number; 32])?;
        let message = Voucher {
            lease: LeaseId::from_bytes([number; 16]),
            operator: AccountId::from_bytes([number; 20]),
            amount: Usd::from_micros(1_000 + u64::from(number)),
            seconds: 60,
        };
        Ok((key.id(), SignedByAccount::sign(&domain, &key, message)?))
    });
    let vouchers = vouchers.collect::<anyhow::Result<Vec<_>>>()?;
    let mut rates = Vec::with_capacity(PARTS);
    for _ in 0..PARTS {
        let (began, mut done) = (Instant::now(), 0_u32);
        while began.elapsed() < PART {
            for (buyer, voucher) in &vouchers {
                anyhow::ensure!(voucher.signer(&domain) == Ok(*buyer), "a good voucher is refused");
            }
            done += u32::from(BUYERS);
        }
        rates.push(f64::from(done) / began.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Ok(format!("per_s_per_core={:.0}", rates[PARTS / 2]))
}
