//! What is sent to the contract: one transaction at a time, and the rest of the role does not wait for it
//! for ever.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use welkin_chain::ops::OpsError;

/// How long a look waits for a transaction; then the role goes on beside it.
const WAITED_FOR: Duration = Duration::from_secs(60);

/// What became of a transaction.
#[derive(Debug)]
pub(super) enum Sent {
    /// It has taken effect.
    Done(String),
    /// It has not.
    Failed(String),
    /// It is not in a block yet, or not deep enough: no other one is sent meanwhile.
    OnItsWay(String),
}

/// At most one transaction.
#[derive(Debug, Default)]
pub(super) struct Sending {
    what: String,
    task: JoinSet<Result<(), OpsError>>,
}

impl Sending {
    /// Whether one is on its way.
    pub(super) fn is_busy(&self) -> bool {
        !self.task.is_empty()
    }

    /// Sends one, unless one is on its way.
    pub(super) fn begin(
        &mut self,
        what: String,
        sending: impl Future<Output = Result<(), OpsError>> + Send + 'static,
    ) {
        if !self.is_busy() {
            self.what = what;
            self.task.spawn(sending);
        }
    }

    /// Waits a while for the one that is on its way.
    pub(super) async fn wait(&mut self) -> Sent {
        let what = self.what.clone();
        match tokio::time::timeout(WAITED_FOR, self.task.join_next()).await {
            Ok(Some(Ok(Ok(())))) => Sent::Done(what),
            Ok(Some(Ok(Err(error)))) => Sent::Failed(crate::chain(&error)),
            Ok(Some(Err(error))) => Sent::Failed(error.to_string()),
            Ok(None) => Sent::Failed("nothing was sent".to_owned()),
            Err(_elapsed) => Sent::OnItsWay(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_no_block_takes_keeps_the_role_for_a_minute_and_no_other_is_sent() {
        let (block, mined) = oneshot::channel();
        let mut sending = Sending::default();
        sending.begin("propose epoch 1".to_owned(), async move {
            mined.await.unwrap();
            Ok(())
        });
        for _ in 0..3 {
            assert!(sending.is_busy());
            let sent = sending.wait().await;
            assert!(matches!(&sent, Sent::OnItsWay(what) if what == "propose epoch 1"), "{sent:?}");
            sending.begin("propose it again".to_owned(), async { panic!("two at once") });
        }
        block.send(()).unwrap();
        let sent = sending.wait().await;
        assert!(matches!(&sent, Sent::Done(what) if what == "propose epoch 1"), "{sent:?}");
        assert!(!sending.is_busy());
        sending.begin("accept epoch 1".to_owned(), async { Ok(()) });
        assert!(matches!(sending.wait().await, Sent::Done(what) if what == "accept epoch 1"));
    }
}
