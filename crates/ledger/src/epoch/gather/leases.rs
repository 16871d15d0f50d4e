//! Finished leases: of each the best receipt, and what of it is of the epoch.

use std::collections::BTreeMap;
use std::ops::Range;

use sha2::{Digest as _, Sha256};
use welkin_proto::epoch::Span;
use welkin_proto::{Receipt, ReceiptFile, encode};
use welkin_types::{AccountId, LeaseId, LeaseState, NodeId};

use super::super::terms::WHOLE_BP;
use super::rolls::Places;
use super::{LeaseSeconds, Sieve, Unfit};

/// Receipts of one lease, the best last: by seconds that the buyer stands for, by whether it signed, and
/// by digest.
pub(super) type Receipts = BTreeMap<(u64, bool, [u8; 32]), Receipt>;

impl<F> Sieve<'_, F> {
    pub(super) fn lease(&mut self, file: &ReceiptFile) -> Result<(), Unfit> {
        if file.domain != self.heading.domain {
            return Err(Unfit::Forged);
        }
        let receipt = file.verify().map_err(|_| Unfit::Unsound)?;
        let ended = receipt.stages.last().map_or(0, |stage| stage.at.0);
        let (from, to) =
            (self.span.start.saturating_mul(1_000), self.span.closes().saturating_mul(1_000));
        if ended < from || ended > to {
            return Err(Unfit::Late);
        }
        // Without the buyer's signature under it, only what a voucher of the buyer promises.
        let promised = file.voucher.as_ref().map_or(0, |voucher| voucher.message.seconds);
        let bound = if file.ack.is_some() { u64::MAX } else { promised };
        let seconds = receipt.usage.seconds.min(bound);
        let bytes = encode(file).map_err(|_| Unfit::Malformed)?;
        let key = (seconds, file.ack.is_some(), Sha256::digest(&bytes).into());
        let known = self.leases.entry((receipt.lease, receipt.host)).or_default();
        if known.insert(key, receipt).is_none() { Ok(()) } else { Err(Unfit::Repeated) }
    }

    pub(super) fn delivered(
        &mut self,
        containers: &Places,
    ) -> BTreeMap<(LeaseId, NodeId), LeaseSeconds> {
        let mut leases = BTreeMap::new();
        for (lease, mut said) in std::mem::take(&mut self.leases) {
            self.refuse(Unfit::Repeated, said.len().saturating_sub(1));
            let Some(((bound, is_signed, _), receipt)) = said.pop_last() else { continue };
            let is_there = containers.get(&receipt.container).is_some_and(|(host, account, _)| {
                *host == receipt.host && *account == receipt.operator
            });
            let seconds = seconds_of(&self.span, &receipt, bound);
            match (is_there, seconds.is_empty()) {
                (false, _) => self.refuse(Unfit::Stranger, 1),
                (true, true) if bound == 0 => self.refuse(Unfit::Unsound, 1),
                (true, true) => self.refuse(Unfit::Late, 1),
                (true, false) => {
                    let (minutes, digests) = (minutes_of(&self.span, &receipt), Vec::new());
                    let (quality_bp, matched) = (WHOLE_BP, matched_by(&receipt, is_signed));
                    leases.insert(
                        lease,
                        LeaseSeconds { receipt, seconds, minutes, digests, quality_bp, matched },
                    );
                }
            }
        }
        leases
    }
}

/// Who is paid for the match: whom both sides have signed for, and who is neither of them.
fn matched_by(receipt: &Receipt, is_signed: bool) -> Option<AccountId> {
    let account = receipt.matched.filter(|_| is_signed)?.account;
    (account != receipt.buyer && account != receipt.operator).then_some(account)
}

/// The minutes of a session that overlap the epoch, counted from when it began to run.
fn minutes_of(span: &Span, receipt: &Receipt) -> Range<u32> {
    let mut running = receipt.stages.windows(2).filter(|p| p[0].state == LeaseState::Running);
    let Some(pair) = running.next() else { return 0..0 };
    let (began, ended) = (pair[0].at.0, pair[1].at.0.min(span.end().saturating_mul(1_000)));
    let number = |minutes: u64| u32::try_from(minutes).unwrap_or(u32::MAX);
    let from = span.start.saturating_mul(1_000).saturating_sub(began) / 60_000;
    let to = ended.saturating_sub(began).max(1).div_ceil(60_000);
    number(from)..number(to)
}

/// Seconds in `running` by period, a begun one counted, at most what the buyer stands for in all.
fn seconds_of(span: &Span, receipt: &Receipt, bound: u64) -> Vec<(u8, u16)> {
    let running = |from: u64, to: u64| -> u64 {
        let pairs = receipt.stages.windows(2);
        let overlap = pairs
            .filter(|pair| pair[0].state == LeaseState::Running)
            .map(|pair| pair[1].at.0.min(to).saturating_sub(pair[0].at.0.max(from)));
        overlap.fold(0, u64::saturating_add).div_ceil(1_000)
    };
    let before = running(0, span.start.saturating_mul(1_000));
    let mut left = bound.saturating_sub(before);
    let mut seconds = Vec::new();
    for period in 0..span.periods {
        let (from, to) = span.bounds(period);
        let here = running(from, to).min(left).min(u64::from(span.period_seconds));
        left -= here;
        if here > 0 {
            seconds.push((period, u16::try_from(here).unwrap_or(u16::MAX)));
        }
    }
    seconds
}
