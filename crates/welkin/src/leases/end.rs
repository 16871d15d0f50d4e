//! `welkin stop` and `welkin rm`: the end of leases, with their receipts.
//!
//! A lease is ended by resuming it: so its last seconds are paid for and its receipt is taken,
//! whoever kept it before. If that one still lives, both hear of the end and both are right.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use welkin_node::buyer::{Buyer, BuyerError, Keeper, KeptLease, LeaseEvent};
use welkin_proto::lease::{FromHost, ToHost};
use welkin_types::task::Span;
use welkin_types::{LeaseId, LeaseState, Reason};

use super::{ASK_TIMEOUT, ask_host};
use crate::client::{self, Client};
use crate::{Context, Usage, cli, out};

/// How long the end may take beyond the grace of the command: wiping and settling.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// The keeper gives a lost host up before this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);
/// Time for the signature under the receipt to leave: nothing answers it.
const ACK_LEAVING: Duration = Duration::from_millis(100);
/// How long a process that waits may take to leave the queue.
const WAIT_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const WAIT_STOP_LOOK: Duration = Duration::from_millis(50);
/// The grace of a removal by force.
const RM_GRACE: Duration = Duration::from_secs(10);
/// Leases that are ended at the same time.
const ENDED_MAX: usize = 32;

/// How a lease ended.
#[derive(Clone, Debug, Serialize)]
struct Ended {
    lease: LeaseId,
    state: LeaseState,
    reason: Reason,
    /// Seconds billed; `None` without a receipt.
    seconds: Option<u64>,
    /// Whether it had ended before this command.
    was_over: bool,
}

impl Ended {
    fn of(kept: &KeptLease, was_over: bool) -> Self {
        let (state, reason) = kept.state();
        Self { lease: kept.lease, state, reason, seconds: None, was_over }
    }

    /// How a lease ended that was over before, with what its receipt says.
    fn of_before(buyer: &Buyer, kept: &KeptLease) -> Self {
        let file = buyer.home().receipt(kept.lease).ok().flatten();
        let receipt = file.and_then(|file| file.receipt.open(&file.domain).ok());
        let seconds = receipt.map(|receipt| receipt.usage.seconds);
        Self { seconds, ..Self::of(kept, true) }
    }

    fn text(&self) -> String {
        let Self { lease, state, reason, .. } = self;
        let already = if self.was_over { "has ended already: " } else { "" };
        let billed = match self.seconds {
            Some(seconds) => format!(", {seconds} s billed"),
            None if self.was_over => String::new(),
            None => ", no receipt yet".to_owned(),
        };
        format!("{lease} {already}{state} ({reason}){billed}\n")
    }
}

/// Stops leases.
pub(crate) async fn stop(context: &Context, args: &cli::Stop) -> anyhow::Result<()> {
    let grace: Span = args
        .grace
        .parse()
        .map_err(|error| Usage::new(format!("--grace: {error}"), "write it like `10s` or `2m`"))?;
    let is_json = context.is_json;
    let (waits, leases): (Vec<_>, Vec<_>) =
        args.leases.iter().cloned().partition(|name| name.starts_with("tkt_"));
    for ticket in &waits {
        stop_wait(context, ticket).await?;
    }
    if leases.is_empty() {
        return Ok(());
    }
    each(context, "stop", &leases, move |buyer, kept| async move {
        // What a person ends is not placed again, also where its host is lost.
        buyer.home().remove_task(kept.lease).map_err(BuyerError::Home)?;
        let ended = if kept.state().0.is_final() {
            Ended::of_before(&buyer, &kept)
        } else {
            end(buyer, kept, grace.duration()).await?
        };
        if is_json { out::json(&ended) } else { out::text(&ended.text()) }
    })
    .await
}

/// Takes a task out of the queue, and waits until the process that waits has understood.
async fn stop_wait(context: &Context, ticket: &str) -> anyhow::Result<()> {
    let home = client::home(context);
    let waits = home.waits().map_err(BuyerError::Home)?;
    let Some(wait) = waits.iter().find(|wait| wait.ticket.to_string().starts_with(ticket)) else {
        let text = format!("nothing waits as `{ticket}`");
        return Err(Usage::new(text, "`welkin ps` lists what waits and what runs").into());
    };
    let ticket = wait.ticket;
    home.stop_wait(ticket).map_err(BuyerError::Home)?;
    let deadline = Instant::now() + WAIT_STOP_TIMEOUT;
    while home.is_wait_stopped(ticket) {
        if Instant::now() >= deadline {
            return Err(anyhow!("the process that waits as {ticket} does not answer: end it"));
        }
        tokio::time::sleep(WAIT_STOP_LOOK).await;
    }
    if context.is_json {
        return out::json(&serde_json::json!({ "ticket": ticket, "stopped": true }));
    }
    out::text(&format!("{ticket} waits no more\n"))
}

/// Forgets ended leases.
pub(crate) async fn rm(context: &Context, args: &cli::Rm) -> anyhow::Result<()> {
    let (force, is_json) = (args.force, context.is_json);
    each(context, "remove", &args.leases, move |buyer, kept| async move {
        let lease = kept.lease;
        settle_first(&buyer, kept.clone(), force).await?;
        // A host that can't be reached forgets by itself after some days.
        let _ = timeout(ASK_TIMEOUT, tell_host(&buyer, &kept)).await;
        buyer.home().remove(lease).map_err(BuyerError::Home)?;
        if is_json {
            out::json(&serde_json::json!({ "lease": lease, "removed": true }))
        } else {
            out::text(&format!("{lease} removed\n"))
        }
    })
    .await
}

/// Does something to each of the named leases, at the same time. All are tried.
async fn each<F, W>(
    context: &Context,
    verb: &'static str,
    names: &[String],
    work: F,
) -> anyhow::Result<()>
where
    F: Fn(Arc<Buyer>, KeptLease) -> W,
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let home = client::home(context);
    let mut failed = Vec::new();
    let mut found: Vec<KeptLease> = Vec::new();
    let mut seen = BTreeSet::new();
    for name in names {
        match client::find_all(&home, name) {
            Ok(named) => found.extend(named.into_iter().filter(|kept| seen.insert(kept.lease))),
            Err(error) => failed.push(error),
        }
    }
    let asked = found.len() + failed.len();
    if !found.is_empty() {
        let client = Client::open(context).await?;
        let mut working = JoinSet::new();
        for kept in found {
            if working.len() >= ENDED_MAX {
                failed.extend(failure(working.join_next().await));
            }
            let lease = kept.lease;
            let task = work(Arc::clone(&client.buyer), kept);
            working.spawn(async move {
                task.await.with_context(|| format!("failed to {verb} {lease}"))
            });
        }
        while let Some(done) = working.join_next().await {
            failed.extend(failure(Some(done)));
        }
        client.close().await;
    }
    report(failed, verb, asked)
}

fn failure(
    done: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>,
) -> Option<anyhow::Error> {
    match done? {
        Ok(result) => result.err(),
        Err(error) => Some(error.into()),
    }
}

/// One failure is returned as it is; of several each is said and their number returned.
fn report(mut failed: Vec<anyhow::Error>, verb: &str, asked: usize) -> anyhow::Result<()> {
    if failed.len() <= 1 {
        return failed.pop().map_or(Ok(()), Err);
    }
    for error in &failed {
        out::note(&format!("error: {error:#}"));
    }
    Err(anyhow!("failed to {verb} {} of {asked} leases", failed.len()))
}

/// Asks a lease to end and waits for its receipt.
async fn end(buyer: Arc<Buyer>, kept: KeptLease, grace: Duration) -> anyhow::Result<Ended> {
    let mut keeper = Keeper::resume(buyer, kept);
    let mut deadline = Instant::now() + CONNECT_TIMEOUT;
    loop {
        let Ok(event) = timeout_at(deadline, keeper.next()).await else { break };
        match event {
            Some(LeaseEvent::Reconnected) => {
                deadline = Instant::now() + grace + END_TIMEOUT;
                keeper.stop(grace).await;
            }
            Some(LeaseEvent::Receipt(file)) => {
                tokio::time::sleep(ACK_LEAVING).await;
                let receipt = file.verify().context("the host's receipt is wrong")?;
                let mut ended = Ended::of(keeper.kept(), false);
                if let Some(last) = receipt.stages.last() {
                    (ended.state, ended.reason) = (last.state, last.reason);
                }
                ended.seconds = Some(receipt.usage.seconds);
                return Ok(ended);
            }
            Some(LeaseEvent::Lost(detail)) => {
                return Err(anyhow::Error::new(BuyerError::HostLost).context(format!(
                    "given up: {detail}; no more is paid, so the host stops it by itself"
                )));
            }
            Some(_) => (),
            None => break,
        }
    }
    let ended = Ended::of(keeper.kept(), false);
    if ended.state.is_final() {
        return Ok(ended);
    }
    Err(anyhow!("has not ended in time, it is {} ({})", ended.state, ended.reason))
}

/// Sees to it that a lease has ended and its receipt is here before it is forgotten.
async fn settle_first(buyer: &Arc<Buyer>, kept: KeptLease, force: bool) -> anyhow::Result<()> {
    let (state, _) = kept.state();
    let has_receipt = buyer.home().receipt(kept.lease).is_ok_and(|receipt| receipt.is_some());
    if has_receipt || state == LeaseState::Lost {
        return Ok(());
    }
    if state.is_final() {
        // Its keeper died between the end and the receipt: the host still has it.
        let _ = timeout(ASK_TIMEOUT, end(Arc::clone(buyer), kept, Duration::ZERO)).await;
        return Ok(());
    }
    if !force && !has_ended_at_host(buyer, &kept).await {
        let hint = "`welkin stop` it first, or use `welkin rm -f`";
        return Err(Usage::new(format!("it has not ended, it is {state}"), hint).into());
    }
    let lease = kept.lease;
    let ended = end(Arc::clone(buyer), kept, RM_GRACE).await;
    // The keeper writes a lease down as lost where its host is gone: then nothing is left to wait
    // for.
    let is_over = buyer
        .home()
        .lease(lease)
        .is_ok_and(|kept| kept.is_none_or(|kept| kept.state().0.is_final()));
    match ended {
        Err(error) if is_over => {
            out::note(&format!("{lease}: {error:#}"));
            Ok(())
        }
        ended => ended.map(drop),
    }
}

async fn has_ended_at_host(buyer: &Buyer, kept: &KeptLease) -> bool {
    let infos = ask_host(buyer, &kept.host, Some(kept.lease)).await;
    infos.is_some_and(|infos| infos.iter().any(|info| info.state().0.is_final()))
}

/// Asks the host to forget, and waits until it says that it has.
async fn tell_host(buyer: &Buyer, kept: &KeptLease) -> Result<(), BuyerError> {
    let mut session = buyer.connect(&kept.host).await?;
    session.send(ToHost::Remove(kept.lease)).await?;
    while let Some(message) = session.recv().await {
        if matches!(message, FromHost::Removed(_) | FromHost::Refused(_)) {
            break;
        }
    }
    session.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::kept;
    use super::*;

    #[test]
    fn an_end_is_one_line() {
        let mut ended = Ended::of(&kept(LeaseState::Stopped), false);
        ended.reason = Reason::BuyerStopped;
        ended.seconds = Some(12);
        let id = ended.lease;
        assert_eq!(ended.text(), format!("{id} stopped (buyer_stopped), 12 s billed\n"));
        let over = Ended::of(&kept(LeaseState::Succeeded), true);
        assert_eq!(over.text(), format!("{id} has ended already: succeeded (normal)\n"));
    }

    #[test]
    fn one_failure_keeps_its_kind_and_several_are_counted() {
        assert!(report(Vec::new(), "stop", 1).is_ok());
        let usage = || anyhow::Error::from(Usage::new("a", "b"));
        assert!(report(vec![usage()], "stop", 3).unwrap_err().is::<Usage>());
        let text = report(vec![usage(), usage()], "stop", 3).unwrap_err().to_string();
        assert_eq!(text, "failed to stop 2 of 3 leases");
    }
}
