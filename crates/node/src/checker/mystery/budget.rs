//! How many sessions an epoch may still have, and what they may cost. It outlives a restart.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;
use welkin_types::Usd;

use super::MysteryBounds;

/// What is left of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Sessions.
    pub(super) sessions: u32,
    /// Money.
    pub(super) money: Usd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    epoch: u64,
    sessions: u32,
    money: Usd,
}

/// What was spent in the present epoch.
#[derive(Debug)]
pub(super) struct Budget {
    file: PathBuf,
    spent: Spent,
}

impl Budget {
    /// Goes on with what a folder says.
    pub(super) fn load(dir: &Path) -> Self {
        let file = dir.join("spent.json");
        let read = std::fs::read(&file).ok();
        let spent = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { file, spent }
    }

    /// What an epoch may still have.
    pub(super) fn left(&self, epoch: u64, bounds: &MysteryBounds) -> Left {
        let spent = if self.spent.epoch == epoch { self.spent } else { Spent::default() };
        Left {
            sessions: bounds.sessions.saturating_sub(spent.sessions),
            money: bounds.money.saturating_sub(spent.money),
        }
    }

    /// A session begins that may cost so much. Returns whether that is written down; else there is to be
    /// no session, for a restart would forget it.
    pub(super) fn begin(&mut self, epoch: u64, most: Usd) -> bool {
        if self.spent.epoch != epoch {
            self.spent = Spent { epoch, ..Spent::default() };
        }
        self.spent.sessions = self.spent.sessions.saturating_add(1);
        self.spent.money = self.spent.money.checked_add(most).unwrap_or(Usd::MAX);
        self.save()
    }

    /// So much of it was not put in.
    pub(super) fn give_back(&mut self, epoch: u64, money: Usd) {
        if self.spent.epoch == epoch {
            self.spent.money = self.spent.money.saturating_sub(money);
            self.save();
        }
    }

    fn save(&self) -> bool {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let written = serde_json::to_vec(&self.spent).map_err(std::io::Error::other);
        let written = written.and_then(|bytes| {
            std::fs::create_dir_all(folder)?;
            let draft = self.file.with_extension("new");
            std::fs::write(&draft, bytes)?;
            std::fs::rename(&draft, &self.file)
        });
        if let Err(error) = &written {
            warn!(%error, "what mystery sessions cost is not written down");
        }
        written.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_its_bounds_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let money = Usd::from_micros(1_000_000);
        let config = MysteryBounds { sessions: 2, money, money_each: money, seconds_max: 9 };
        let usd = Usd::from_micros;
        let mut budget = Budget::load(dir.path());
        assert!(budget.begin(7, usd(500_000)));
        budget.give_back(7, usd(100_000));
        let mut budget = Budget::load(dir.path());
        assert_eq!(budget.left(7, &config), Left { sessions: 1, money: usd(600_000) });
        assert!(budget.begin(7, usd(600_000)));
        // Stopped in the middle: what it may have cost is spent.
        let mut budget = Budget::load(dir.path());
        assert_eq!(budget.left(7, &config), Left { sessions: 0, money: Usd::ZERO });
        assert_eq!(budget.left(8, &config).sessions, 2);
        assert!(budget.begin(8, usd(400_000)));
        // Of a session that began an epoch earlier.
        budget.give_back(7, usd(300_000));
        assert_eq!(budget.left(8, &config).money, usd(600_000));
        // What can't be written down is not begun.
        std::fs::remove_dir_all(dir.path()).unwrap();
        std::fs::write(dir.path(), b"").unwrap();
        assert!(!budget.begin(8, usd(1)));
    }
}
