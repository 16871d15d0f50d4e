//! What a host measures of one session, and what its buyer has sent of its own side.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::{debug, warn};
use welkin_lease::{Gauge, Heard, LeaseRecord, Sheets, Subject, Worked};
use welkin_proto::digest::{DigestUpdate, MINUTES_MAX, Series, SessionDigests, Side};
use welkin_runtime::Stats;
use welkin_store::{Batch, Db};
use welkin_types::{LeaseId, LeaseState, UnixMillis};

use super::Host;
use super::sandboxes::Sandboxes;
use crate::outside;

/// The table of digests, by lease.
pub(crate) const DIGESTS: &str = "digests";
/// How often the sandbox's counters are read.
const READ_EVERY: Duration = Duration::from_secs(20);
/// A buyer's clock may be ahead by so many minutes.
const AHEAD_MAX: u32 = 2;
/// A buyer sends at most one update a minute, and so many besides: at the end, and after each time that
/// it came back. What is more is not looked at.
const EXTRA_UPDATES_MAX: u64 = 32;

/// What is on the disk of one session.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    own: Vec<Series>,
    buyers: Vec<SessionDigests>,
}

/// Both sides of one session.
#[derive(Debug)]
pub(super) struct Quality {
    lease: LeaseId,
    gauge: Option<Gauge>,
    sheets: Sheets,
    buyers: Vec<SessionDigests>,
    /// What the connection was when the last voucher came.
    heard: Heard,
    read_at: UnixMillis,
    reading: JoinSet<Option<Stats>>,
    /// Updates that were looked at.
    updates: u64,
    is_over: bool,
}

/// The digests of a lease that ended before a restart, signed.
pub(super) fn ended(host: &Host, record: &LeaseRecord) -> Vec<SessionDigests> {
    Quality::load(&host.db, record).signed(host)
}

/// The digests go with their lease.
pub(super) fn forget(batch: &mut Batch, lease: LeaseId) {
    batch.remove(DIGESTS, lease.as_bytes());
}

impl Quality {
    /// With nothing measured yet.
    pub(super) fn new(record: &LeaseRecord) -> Self {
        Self::of(record, Kept::default())
    }

    /// With what was measured before a restart.
    pub(super) fn load(db: &Db, record: &LeaseRecord) -> Self {
        let key = *record.order.message.lease.as_bytes();
        let rows = db.range(DIGESTS, &key, &key).unwrap_or_default();
        let kept = rows.first().and_then(|(_, bytes)| postcard::from_bytes(bytes).ok());
        let mut quality = Self::of(record, kept.unwrap_or_default());
        if let Some(running) = record.stages.last().filter(|s| s.state == LeaseState::Running) {
            quality.begin(record, running.at);
        }
        quality
    }

    fn of(record: &LeaseRecord, kept: Kept) -> Self {
        let order = &record.order.message;
        let (lease, host, buyer) = (order.lease, order.host, order.buyer);
        let subject = Subject { lease, host, buyer, side: Side::Host };
        Self {
            lease,
            gauge: None,
            sheets: Sheets::new(subject, kept.own),
            buyers: kept.buyers,
            heard: Heard::default(),
            read_at: UnixMillis(0),
            reading: JoinSet::new(),
            updates: 0,
            is_over: false,
        }
    }

    /// The lease has come to its last stage.
    pub(super) fn stage(&mut self, record: &LeaseRecord) {
        let (Some(first), Some(last)) = (record.stages.first(), record.stages.last()) else {
            return;
        };
        if last.state <= LeaseState::Running {
            self.sheets.mark(last.state, last.at.since(first.at).as_millis());
        }
        match &mut self.gauge {
            None if last.state == LeaseState::Running => self.begin(record, last.at),
            Some(gauge) if last.state > LeaseState::Running && !self.is_over => {
                self.is_over = true;
                gauge.end(last.at);
                let minutes = gauge.take();
                self.sheets.add(minutes);
            }
            _ => (),
        }
    }

    fn begin(&mut self, record: &LeaseRecord, at: UnixMillis) {
        let began = self.sheets.begin(at);
        self.gauge = Some(Gauge::new(began, outside::now(), record.launch.cpu_milli));
    }

    /// The buyer has paid over a connection of which this is known.
    pub(super) const fn paid(&mut self, heard: Heard) {
        self.heard = heard;
    }

    /// The command runs. Says whether there is something new to keep.
    pub(super) fn pulse(&mut self, sandboxes: Option<&Sandboxes>, record: &LeaseRecord) -> bool {
        let now = outside::now();
        let Some(gauge) = self.gauge.as_mut().filter(|_| !self.is_over) else { return false };
        gauge.heard(now, std::mem::take(&mut self.heard));
        if now.since(self.read_at) >= READ_EVERY
            && self.reading.is_empty()
            && let Some(sandboxes) = sandboxes.cloned()
        {
            let sandbox = record.sandbox;
            self.read_at = now;
            self.reading.spawn(async move { sandboxes.stats(sandbox).await });
        }
        let minutes = gauge.take();
        self.sheets.add(minutes)
    }

    /// What the sandbox's counters are, once they were read. Safe to cancel.
    pub(super) async fn read(&mut self) -> Stats {
        loop {
            match self.reading.join_next().await {
                Some(Ok(Some(stats))) => return stats,
                Some(_) => (),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes in what was read.
    pub(super) fn worked(&mut self, stats: Stats) {
        let (used_us, throttled_us) = (stats.cpu_usec, stats.throttled_usec);
        // Who is held back by the limit waits, too.
        let waited_us = stats.waited_usec.saturating_sub(throttled_us);
        if let Some(gauge) = self.gauge.as_mut().filter(|_| !self.is_over) {
            gauge.worked(outside::now(), Worked { used_us, throttled_us, waited_us });
        }
    }

    /// Takes in what the buyer has measured; says whether it is new.
    pub(super) fn update(
        &mut self,
        host: &Host,
        record: &LeaseRecord,
        update: DigestUpdate,
    ) -> bool {
        let (series, order) = (&update.series, &record.order.message);
        let is_its =
            (series.lease, series.host, series.buyer) == (order.lease, order.host, order.buyer);
        let ran = record.seconds(outside::now()) / 60;
        self.updates += 1;
        if self.updates > ran + EXTRA_UPDATES_MAX {
            return false;
        }
        let latest = u32::try_from(ran).unwrap_or(u32::MAX).saturating_add(AHEAD_MAX);
        let is_late = series.minutes.last().is_none_or(|digest| digest.minute > latest);
        if !is_its || is_late || series.part > latest / MINUTES_MAX {
            return false;
        }
        let place = self.buyers.iter().position(|known| known.series.part == series.part);
        let known = place.and_then(|place| self.buyers.get(place));
        match update.join(&host.domain, known) {
            Ok(joined) if Some(&joined) == known => false,
            Ok(joined) => {
                place.map(|place| self.buyers.remove(place));
                self.buyers.push(joined);
                if self.buyers.len() > Sheets::KEPT_MAX {
                    self.buyers.remove(0);
                }
                true
            }
            Err(error) => {
                debug!(lease = %self.lease, %error, "a buyer's digests are refused");
                false
            }
        }
    }

    /// Queues all of it for the disk.
    pub(super) fn save(&self, db: &Db) {
        let kept = Kept { own: self.sheets.parts().to_vec(), buyers: self.buyers.clone() };
        let mut batch = Batch::default();
        match postcard::to_stdvec(&kept) {
            Ok(bytes) => batch.put(DIGESTS, self.lease.as_bytes(), bytes),
            Err(error) => warn!(%error, "the digests of a session can't be encoded"),
        }
        // Nobody waits for it: after a loss of power the last minutes are missing.
        drop(db.queue(batch));
    }

    /// Both sides, the host's signed now.
    pub(super) fn signed(&self, host: &Host) -> Vec<SessionDigests> {
        let own = self.sheets.parts().iter().cloned();
        let own =
            own.filter_map(|series| SessionDigests::by_host(&host.domain, &host.key, series).ok());
        own.chain(self.buyers.iter().cloned()).collect()
    }
}
