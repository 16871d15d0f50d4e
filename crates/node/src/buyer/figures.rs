//! The door by which whoever uses a lease says how well it serves: files that its keeper takes in.

use std::fs;
use std::path::PathBuf;

use welkin_lease::Reports;
use welkin_proto::digest::Figures;
use welkin_types::LeaseId;

use super::home::{Home, HomeError, read_json, write_json};
use crate::outside;

/// The most reports that wait for a keeper, which takes them in every two seconds.
const WAITING_MAX: usize = Reports::REPORTS_MAX;

/// Why a report is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A number is out of bounds, or there is none.
    #[error(
        "a figure is out of bounds: shares are at most 1000 thousandths, freezes at most 60000 ms, \
         and there must be one"
    )]
    Bounds,
    /// Nobody takes the earlier ones.
    #[error("{WAITING_MAX} reports wait already: does the lease run, and is it kept here?")]
    Full,
    /// It can't be written.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl Home {
    fn figures_dir(&self, lease: LeaseId) -> PathBuf {
        self.dir().join("figures").join(lease.to_string())
    }

    fn waiting_figures(&self, lease: LeaseId) -> Vec<PathBuf> {
        // Mostly there is no such folder.
        let Ok(entries) = fs::read_dir(self.figures_dir(lease)) else { return Vec::new() };
        let paths = entries.take(2 * WAITING_MAX).filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|kind| kind == "json")).collect();
        paths.sort();
        paths
    }

    /// Says what was measured of a lease now; its keeper puts it into the digest of the minute.
    ///
    /// # Errors
    ///
    /// [`MeasureError`]
    pub fn measured(&self, lease: LeaseId, figures: Figures) -> Result<(), MeasureError> {
        if figures == Figures::None || !figures.is_bounded() {
            return Err(MeasureError::Bounds);
        }
        if self.waiting_figures(lease).len() >= WAITING_MAX {
            return Err(MeasureError::Full);
        }
        let name =
            format!("{:013}-{:08x}.json", outside::now().0, u32::from_le_bytes(outside::random()));
        Ok(write_json(&self.figures_dir(lease).join(name), &figures)?)
    }

    /// What was reported since the last time, each once, the oldest first.
    pub(super) fn take_figures(&self, lease: LeaseId) -> Vec<Figures> {
        let mut taken = Vec::new();
        for path in self.waiting_figures(lease) {
            let read: Option<Figures> = read_json(&path).ok().flatten();
            match fs::remove_file(&path) {
                Ok(()) => taken.extend(read),
                // One that stayed would count again and again.
                Err(error) => tracing::debug!(%error, "a report of a lease can't be removed"),
            }
        }
        taken
    }

    /// Forgets what nobody took.
    pub(super) fn remove_figures(&self, lease: LeaseId) {
        // Of no consequence where it stays.
        let _ = fs::remove_dir_all(self.figures_dir(lease));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_once_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (home, lease) = (Home::new(dir.path().to_owned()), LeaseId::from_bytes([1; 16]));
        let report = |errors_milli| Figures::Inference {
            first_token_ms: Some(120),
            tokens_milli: None,
            errors_milli,
        };
        assert!(home.take_figures(lease).is_empty());
        home.measured(lease, report(Some(0))).unwrap();
        home.measured(lease, report(None)).unwrap();
        assert_eq!(home.take_figures(lease).len(), 2);
        assert!(home.take_figures(lease).is_empty());
        for wrong in [Figures::None, report(Some(1_001))] {
            assert!(matches!(home.measured(lease, wrong), Err(MeasureError::Bounds)));
        }
        for _ in 0..WAITING_MAX {
            home.measured(lease, report(None)).unwrap();
        }
        assert!(matches!(home.measured(lease, report(None)), Err(MeasureError::Full)));
        home.remove_figures(lease);
        assert!(home.take_figures(lease).is_empty());
    }
}
