//! Which of a checker's containers it measures when.

use tokio::task::JoinSet;
use tracing::debug;
use welkin_proto::Turn;
use welkin_proto::site::SiteReport;
use welkin_types::Region;

use super::exam::{ExamError, Target, Who};
use super::site::measure;
use crate::outside;

/// The most measurements at once: each wants the network for itself.
const AT_ONCE: usize = 2;
/// Of so many challenges one comes with a measurement.
const CHALLENGES: u32 = 5;

/// A checker's measurements.
#[derive(Debug)]
pub(super) struct Sites {
    who: Who,
    percent: u8,
    region: Option<Region>,
    under_way: JoinSet<Result<SiteReport, ExamError>>,
}

impl Sites {
    /// Of a hundred probes `percent` come with a challenge, of these a fifth with a measurement.
    pub(super) fn new(who: Who, percent: u8, region: Option<Region>) -> Self {
        Self { who, percent: percent.min(100), region, under_way: JoinSet::new() }
    }

    /// A probe begins: by chance, a measurement goes with it.
    pub(super) fn begin(&mut self, target: &Target, minute: u64, turn: Option<Turn>) {
        let die = u32::from(u16::from_le_bytes(outside::random()));
        let is_chosen = die * 100 * CHALLENGES / 65_536 < u32::from(self.percent);
        if !is_chosen || self.under_way.len() >= AT_ONCE {
            return;
        }
        let who = Who { turn, ..self.who.clone() };
        let (target, region) = (target.clone(), self.region.clone());
        self.under_way.spawn(async move { measure(&who, &target, minute, region).await });
    }

    /// The next finding; pending while there is none.
    pub(super) async fn next(&mut self) -> Option<SiteReport> {
        let Some(Ok(found)) = self.under_way.join_next().await else {
            return std::future::pending().await;
        };
        found.inspect_err(|error| debug!(error = %crate::chain(error), "nothing was measured")).ok()
    }
}
