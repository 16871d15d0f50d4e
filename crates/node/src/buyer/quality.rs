//! What a buyer measures of one session, and what its host says it measured.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};
use welkin_lease::{Gauge, Heard, Sheets, Subject};
use welkin_net::Connection;
use welkin_proto::digest::{DigestUpdate, Figures, Series, SessionDigests, Side};
use welkin_proto::{AccountKey, Domain, StageTime};
use welkin_types::{LeaseId, LeaseState};

use super::home::{Home, HomeError, KeptLease, read_json, write_json};
use crate::outside;

/// What is remembered of a session's quality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDigests {
    /// What this side measured.
    pub own: Vec<Series>,
    /// What the host has signed; once the lease has ended.
    #[serde(default)]
    pub host: Vec<SessionDigests>,
}

impl Home {
    fn digests_path(&self, lease: LeaseId) -> PathBuf {
        self.dir().join("digests").join(format!("{lease}.json"))
    }

    /// What was measured of a session; nothing where the file is missing.
    ///
    /// # Errors
    ///
    /// [`HomeError`] if its file is damaged.
    pub fn digests(&self, lease: LeaseId) -> Result<Option<KeptDigests>, HomeError> {
        read_json(&self.digests_path(lease))
    }

    /// Forgets what was measured of a session.
    pub(super) fn remove_digests(&self, lease: LeaseId) {
        // Of no consequence where it stays.
        let _ = std::fs::remove_file(self.digests_path(lease));
        self.remove_figures(lease);
    }
}

/// What the connection to a host has come to.
pub(crate) fn heard(connection: &Connection) -> Heard {
    let rtt = connection.path().map(|path| path.rtt.as_micros());
    let traffic = connection.traffic();
    Heard {
        rtt_us: rtt.and_then(|rtt| u32::try_from(rtt).ok()),
        packets: Some((traffic.sent_packets, traffic.lost_packets)),
    }
}

/// The buyer's side of one session.
#[derive(Debug)]
pub(super) struct Quality {
    lease: LeaseId,
    gauge: Option<Gauge>,
    sheets: Sheets,
    host: Vec<SessionDigests>,
    /// The part that the host has, and how many minutes of it.
    sent: (u32, u32),
    is_over: bool,
}

impl Quality {
    /// Of a lease that was just placed, or that another process kept before.
    pub(super) fn of(kept: &KeptLease, home: Option<&Home>) -> Self {
        let order = &kept.order.message;
        let subject =
            Subject { lease: order.lease, host: order.host, buyer: order.buyer, side: Side::Buyer };
        let known = home.and_then(|home| home.digests(order.lease).ok().flatten());
        let known = known.unwrap_or_default();
        Self {
            lease: order.lease,
            gauge: None,
            sheets: Sheets::new(subject, known.own),
            host: known.host,
            sent: (0, 0),
            is_over: false,
        }
    }

    /// The lease has come to this stage, a new one for this side.
    pub(super) fn stage(&mut self, kept: &KeptLease, stage: &StageTime) {
        let now = outside::now();
        if stage.state <= LeaseState::Running {
            self.sheets.mark(stage.state, now.since(kept.order.message.issued).as_millis());
        } else if let Some(gauge) = self.gauge.as_mut().filter(|_| !self.is_over) {
            self.is_over = true;
            gauge.end(now);
            let minutes = gauge.take();
            self.sheets.add(minutes);
        }
    }

    /// The command runs, by this side's clock since then.
    pub(super) fn running(&mut self, since: welkin_types::UnixMillis) {
        if self.gauge.is_none() {
            let began = self.sheets.begin(since);
            self.gauge = Some(Gauge::new(began, outside::now(), 0));
        }
    }

    /// The host was heard while the command runs, and whoever uses it has reported that much. Says whether
    /// a minute is over.
    pub(super) fn heard(&mut self, heard: Heard, reported: Vec<Figures>) -> bool {
        let Some(gauge) = self.gauge.as_mut().filter(|_| !self.is_over) else { return false };
        reported.into_iter().for_each(|figures| gauge.reported(figures));
        gauge.heard(outside::now(), heard);
        let minutes = gauge.take();
        self.sheets.add(minutes)
    }

    /// The host may have missed what was sent.
    pub(super) const fn resend(&mut self) {
        self.sent = (0, 0);
    }

    /// What the host does not have yet, signed.
    pub(super) fn update(&mut self, domain: &Domain, account: &AccountKey) -> Option<DigestUpdate> {
        let series = self.sheets.parts().last()?.clone();
        let count = u32::try_from(series.minutes.len()).ok()?;
        let from = if self.sent.0 == series.part { self.sent.1 } else { 0 };
        let part = series.part;
        if from >= count {
            return None;
        }
        match SessionDigests::by_buyer(domain, account, series) {
            Ok(signed) => {
                self.sent = (part, count);
                signed.update(from)
            }
            Err(error) => {
                warn!(lease = %self.lease, %error, "what was measured of a session can't be signed");
                None
            }
        }
    }

    /// What this side measured.
    pub(super) fn own(&self) -> &[Series] {
        self.sheets.parts()
    }

    /// Takes in what the host has signed.
    pub(super) fn told(&mut self, domain: &Domain, kept: &KeptLease, digests: SessionDigests) {
        let (series, order) = (&digests.series, &kept.order.message);
        let is_its = (series.lease, series.host, series.buyer, series.side)
            == (order.lease, order.host, order.buyer, Side::Host);
        if !is_its || self.host.len() >= Sheets::KEPT_MAX || digests.verify(domain).is_err() {
            debug!(lease = %self.lease, "the host's digests are not its own");
            return;
        }
        self.host.retain(|known| known.series.part != series.part);
        self.host.push(digests);
    }

    /// Writes down what there is.
    pub(super) fn save(&self, home: &Home) {
        let kept = KeptDigests { own: self.sheets.parts().to_vec(), host: self.host.clone() };
        if kept == KeptDigests::default() {
            return;
        }
        if let Err(error) = write_json(&home.digests_path(self.lease), &kept) {
            warn!(error = %crate::chain(&error), "what was measured of a session is not kept");
        }
    }
}
