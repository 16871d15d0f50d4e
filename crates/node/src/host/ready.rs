//! Which images are ready on this host: what ran here last need not be fetched and unpacked again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use welkin_proto::{ContainerOffer, app_of_image};
use welkin_types::AppId;

/// The image that every host has.
const ALWAYS: &str = "host";
/// Indexers hear of new images at most so often; each time costs a signature of theirs.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// The images that were used last, the latest first.
#[derive(Debug)]
pub(crate) struct Ready(Mutex<Used>);

#[derive(Debug)]
struct Used {
    apps: VecDeque<AppId>,
    told: Option<Instant>,
    is_told: bool,
}

impl Default for Ready {
    fn default() -> Self {
        let apps = VecDeque::from([app_of_image(ALWAYS)]);
        Self(Mutex::new(Used { apps, told: None, is_told: true }))
    }
}

impl Ready {
    /// What is ready now, as a container lists it.
    pub(crate) fn apps(&self) -> Vec<AppId> {
        self.lock().apps.iter().copied().collect()
    }

    /// An image has just been made ready. Returns whether indexers should hear of it now; those of
    /// which they don't are told with the next one, or when the capability is renewed.
    pub(crate) fn used(&self, image: &str) -> bool {
        let app = app_of_image(image);
        let mut used = self.lock();
        let known = used.apps.iter().position(|known| *known == app);
        used.is_told &= known.is_some();
        // The image that all have keeps its place at the end.
        if app != app_of_image(ALWAYS) {
            known.map(|place| used.apps.remove(place));
            used.apps.push_front(app);
            while used.apps.len() > ContainerOffer::APPS_MAX {
                let oldest = used.apps.len() - 2;
                used.apps.remove(oldest);
            }
        }
        let is_time = used.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if used.is_told || !is_time {
            return false;
        }
        (used.told, used.is_told) = (Some(Instant::now()), true);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_latest_images_are_ready_and_told_of_seldom() {
        let ready = Ready::default();
        assert!(!ready.used("host"), "all hosts have it");
        assert!(ready.used("/a"));
        assert!(!ready.used("/a"));
        assert!(!ready.used("/b"), "too soon");
        tokio::time::advance(TOLD_EVERY).await;
        assert!(ready.used("/a"), "now both are told");
        let known = ["/a", "/b", "host"].map(app_of_image);
        assert_eq!(ready.apps(), known);
        for number in 0..40 {
            ready.used(&format!("/{number}"));
        }
        let apps = ready.apps();
        assert_eq!(apps.len(), ContainerOffer::APPS_MAX);
        assert_eq!((apps[0], apps[15]), (app_of_image("/39"), app_of_image("host")));
    }
}
