//! What is sent to the contract: one transaction at a time, and the rest of the role does not wait for it
//! for ever.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use welkin_chain::ops::OpsError;

/// How long a transaction is waited for; then the role goes on beside it.
const WAITED_FOR: Duration = Duration::from_secs(10);
/// One that takes so long is somebody's to look at: the sender offers more for gas by itself.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// What was sent, once it has taken effect, or why it has not.
pub(super) type Sent = Result<String, String>;

/// At most one transaction.
#[derive(Debug)]
pub(super) struct Sending {
    what: String,
    since: Instant,
    task: JoinSet<Result<(), OpsError>>,
}

impl Sending {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self { what: String::new(), since: Instant::now(), task: JoinSet::new() }
    }

    /// What became of one that was on its way, if it has ended since.
    pub(super) fn ended(&mut self) -> Option<Sent> {
        self.task.try_join_next().map(|ended| self.outcome(ended))
    }

    /// What is on its way, and whether it has been for so long that it seems stuck.
    pub(super) fn on_its_way(&self) -> Option<(&str, bool)> {
        let is_stuck = self.since.elapsed() >= STUCK_AFTER;
        (!self.task.is_empty()).then_some((self.what.as_str(), is_stuck))
    }

    /// Sends one and waits a while for it; `None` while one is on its way. No other is sent meanwhile.
    pub(super) async fn send(
        &mut self,
        what: String,
        sending: impl Future<Output = Result<(), OpsError>> + Send + 'static,
    ) -> Option<Sent> {
        if self.task.is_empty() {
            (self.what, self.since) = (what, Instant::now());
            self.task.spawn(sending);
        }
        let ended = tokio::time::timeout(WAITED_FOR, self.task.join_next()).await;
        ended.ok().flatten().map(|ended| self.outcome(ended))
    }

    fn outcome(&self, ended: Result<Result<(), OpsError>, JoinError>) -> Sent {
        match ended {
            Ok(Ok(())) => Ok(self.what.clone()),
            Ok(Err(error)) => Err(crate::chain(&error)),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_no_block_takes_keeps_nobody_and_no_other_is_sent() {
        let (block, mined) = oneshot::channel::<()>();
        let mut sending = Sending::new();
        assert_eq!(sending.on_its_way(), None);
        let first = async move {
            mined.await.unwrap();
            Ok(())
        };
        assert_eq!(sending.send("propose 1".to_owned(), first).await, None);
        assert_eq!(sending.on_its_way(), Some(("propose 1", false)));
        let other = async { panic!("two at once") };
        assert_eq!(sending.send("propose 2".to_owned(), other).await, None);
        tokio::time::advance(STUCK_AFTER).await;
        assert_eq!(sending.on_its_way(), Some(("propose 1", true)));
        assert_eq!(sending.ended(), None);

        // What has ended is told as what it was, before anything else is sent.
        block.send(()).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(sending.ended(), Some(Ok("propose 1".to_owned())));
        assert_eq!((sending.ended(), sending.on_its_way()), (None, None));
        let sent = sending.send("accept 1".to_owned(), async { Ok(()) }).await;
        assert_eq!(sent, Some(Ok("accept 1".to_owned())));
    }
}
