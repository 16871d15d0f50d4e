//! One way to stop.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Tells tasks to stop and waits until they have.
///
/// All tasks of a role are spawned here, so that none outlives it unseen.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Spawns a task that [`Self::finish`] will wait for.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(self.tasks.spawn(task.instrument(tracing::debug_span!("task", name))));
    }

    /// Spawns a task that is dropped as soon as a stop is asked for.
    pub fn spawn_until_asked<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = task => (),
                () = token.cancelled() => (),
            }
        });
    }

    /// A part of this that stops with it, and can be stopped alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: self.tasks.clone() }
    }

    /// Completes once a stop has been asked for.
    pub async fn asked(&self) {
        self.token.cancelled().await;
    }

    /// Whether a stop has been asked for.
    pub fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Asks every task to stop, without waiting.
    pub fn ask(&self) {
        self.token.cancel();
    }

    /// Asks every task to stop and waits up to `grace`. Returns whether all did.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.token.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_tasks_and_gives_up_on_the_stuck() {
        let shutdown = Shutdown::default();
        let inner = shutdown.clone();
        shutdown.spawn("polite", async move { inner.asked().await });
        shutdown.spawn_until_asked("dropped", std::future::pending());
        assert!(shutdown.finish(Duration::from_secs(5)).await);

        let shutdown = Shutdown::default();
        shutdown.spawn("stuck", std::future::pending());
        assert!(!shutdown.finish(Duration::from_secs(5)).await);
    }
}
