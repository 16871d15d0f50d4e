//! What one side measured of a session, in parts of twelve hours.

use welkin_proto::digest::{MARKS_MAX, MINUTES_MAX, Mark, MinuteDigest, PARTS_MAX, Series, Side};
use welkin_types::{AccountId, LeaseId, LeaseState, NodeId, UnixMillis};

/// Whose session it is, and who measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Which lease.
    pub lease: LeaseId,
    /// Who runs it.
    pub host: NodeId,
    /// Who pays for it.
    pub buyer: AccountId,
    /// Who measures.
    pub side: Side,
}

/// The newest parts of what one side measured. Older ones are of epochs that are closed when the lease
/// ends, and are forgotten.
#[derive(Clone, Debug)]
pub struct Sheets {
    subject: Subject,
    began: Option<UnixMillis>,
    start: Vec<Mark>,
    parts: Vec<Series>,
}

impl Sheets {
    /// Parts that are kept: an epoch of a day, and what is left of it when it closes.
    pub const KEPT_MAX: usize = 4;

    /// Goes on with what was kept of the same subject; anything else is left out.
    pub fn new(subject: Subject, kept: Vec<Series>) -> Self {
        let is_its = |series: &Series| {
            let Series { lease, host, buyer, side, .. } = *series;
            subject == Subject { lease, host, buyer, side } && series.check().is_ok()
        };
        let mut parts: Vec<_> = kept.into_iter().filter(is_its).collect();
        parts.sort_by_key(|series| series.part);
        parts.dedup_by_key(|series| series.part);
        let began = parts.last().map(|series| series.began);
        parts.retain(|series| Some(series.began) == began);
        Self { subject, began, start: Vec::new(), parts }
    }

    /// A stage of the start was reached. What comes after the first minute is no start.
    pub fn mark(&mut self, state: LeaseState, after_ms: u128) {
        if self.start.len() < MARKS_MAX && self.parts.is_empty() {
            let after_ms = u32::try_from(after_ms).unwrap_or(u32::MAX);
            self.start.push(Mark { state, after_ms });
        }
    }

    /// Says when the command began to run, where that is not known; returns when it did.
    pub fn begin(&mut self, at: UnixMillis) -> UnixMillis {
        *self.began.get_or_insert(at)
    }

    /// Adds minutes that are later than all before; says whether there were any.
    pub fn add(&mut self, minutes: Vec<MinuteDigest>) -> bool {
        let before = self.count();
        for digest in minutes {
            self.add_one(digest);
        }
        while self.parts.len() > Self::KEPT_MAX {
            self.parts.remove(0);
        }
        self.count() != before
    }

    fn add_one(&mut self, digest: MinuteDigest) {
        let (Some(began), part) = (self.began, digest.minute / MINUTES_MAX) else { return };
        let last = self.parts.last().and_then(|series| series.minutes.last());
        if part >= PARTS_MAX || last.is_some_and(|last| digest.minute <= last.minute) {
            return;
        }
        if self.parts.last().is_none_or(|series| series.part != part) {
            let Subject { lease, host, buyer, side } = self.subject;
            let start = if part == 0 { std::mem::take(&mut self.start) } else { Vec::new() };
            let minutes = Vec::new();
            self.parts.push(Series { lease, host, buyer, side, part, began, start, minutes });
        }
        if let Some(series) = self.parts.last_mut() {
            series.minutes.push(digest);
        }
    }

    fn count(&self) -> (u32, usize) {
        self.parts.last().map_or((0, 0), |series| (series.part + 1, series.minutes.len()))
    }

    /// The parts, the oldest first.
    pub fn parts(&self) -> &[Series] {
        &self.parts
    }
}

#[cfg(test)]
mod tests {
    use welkin_proto::digest::Figures;

    use super::*;

    fn subject(side: Side) -> Subject {
        Subject {
            lease: LeaseId::from_bytes([1; 16]),
            host: NodeId::from_bytes([2; 32]),
            buyer: AccountId::from_bytes([3; 20]),
            side,
        }
    }

    fn digest(minute: u32) -> MinuteDigest {
        let (round_trip, loss, figures) = (None, None, Figures::None);
        MinuteDigest { minute, watched: 60, answered: 60, round_trip, loss, figures }
    }

    #[test]
    fn parts_follow_each_other_and_the_oldest_go() {
        let mut sheets = Sheets::new(subject(Side::Host), Vec::new());
        assert!(!sheets.add(vec![digest(0)]), "nothing is measured before it runs");
        sheets.mark(LeaseState::Running, 300);
        assert_eq!(sheets.begin(UnixMillis(5)), UnixMillis(5));
        assert!(sheets.add((0..MINUTES_MAX + 2).map(digest).collect()));
        assert!(!sheets.add(vec![digest(7)]), "what was said is not said again");
        assert_eq!(sheets.parts().len(), 2);
        assert_eq!(sheets.parts()[0].start.len(), 1);
        assert!(sheets.parts().iter().all(|series| series.check().is_ok()));
        assert!(sheets.add((MINUTES_MAX + 2..6 * MINUTES_MAX).map(digest).collect()));
        let parts: Vec<_> = sheets.parts().iter().map(|series| series.part).collect();
        assert_eq!(parts, [2, 3, 4, 5]);

        let kept = sheets.parts().to_vec();
        let mut again = Sheets::new(subject(Side::Host), kept.clone());
        assert_eq!(again.begin(UnixMillis(99)), UnixMillis(5));
        assert!(again.add(vec![digest(6 * MINUTES_MAX)]));
        assert!(Sheets::new(subject(Side::Buyer), kept).parts().is_empty());
    }
}
