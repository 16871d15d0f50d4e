//! Where this checker is wanted to stand in.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::debug;
use welkin_check::Input;
use welkin_proto::check::ShortAsk;
use welkin_proto::index::{IndexHello, IndexReply, IndexRequest};

use crate::connect::Caller;

/// How long indexers may take: what they say later is of no use in that minute.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);

/// Asks all indexers which containers are short of checkers. One that is short at any of them is: a report
/// may not have reached that one, and standing in for nothing costs a probe. Where nobody answers, all
/// are.
pub(super) async fn ask(indexers: Arc<Vec<Caller>>, ask: ShortAsk) -> Input {
    let (minute, all) = (ask.minute, ask.containers.clone());
    let hello = Arc::new(IndexHello::Ask(Box::new(IndexRequest::Short(Box::new(ask)))));
    let mut asking = JoinSet::new();
    for place in 0..indexers.len() {
        let (indexers, hello) = (Arc::clone(&indexers), Arc::clone(&hello));
        asking.spawn(async move { indexers[place].ask(&hello, ASK_TIMEOUT).await });
    }
    let (mut short, mut is_answered) = (BTreeSet::new(), false);
    while let Some(said) = asking.join_next().await {
        match said {
            Ok(Ok(IndexReply::Short(containers))) => {
                is_answered = true;
                short.extend(containers);
            }
            Ok(Ok(_)) => debug!("an indexer does not say who is short of checkers"),
            Ok(Err(error)) => debug!(error = %crate::chain(&error), "an indexer was not reached"),
            Err(_) => debug!("a question was given up"),
        }
    }
    let containers = if is_answered { short.into_iter().collect() } else { all };
    Input::Short { minute, containers }
}
