//! `welkin run --nodes N`: one command on several containers, all of them leased or none.
//!
//! The nodes have ranks from 0. What they print is shown line by line behind the rank. As soon as
//! one of them fails the others are stopped, and its code is the program's. Two Ctrl-C stop and
//! kill all; a terminal that is closed leaves them to the agent.

mod attend;
mod start;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use welkin_node::buyer::{BuyerError, Keeper, KeptGang, KeptLease, PlaceProgress, place_gang};
use welkin_node::outside;
use welkin_proto::Offer;
use welkin_proto::index::GangAsk;
use welkin_types::{CapacityType, GangId, Price, Usd};

use self::attend::Ended;
use self::start::Files;
use crate::cli::Run;
use crate::client::Client;
use crate::run::{CANCELLED, describe, hand_over, no_longer_wanted, say};
use crate::task::Job;
use crate::waiting::Waiting;
use crate::{Context, Quit, Usage, out, roles, terminal};

/// Runs a task of several nodes.
pub(crate) async fn run(context: &Context, args: &Run, mut job: Job) -> anyhow::Result<()> {
    let Some(gang) = job.gang else { return Ok(()) };
    if args.tty {
        let text = "-t is for one node: several have no terminal in common";
        return Err(Usage::new(text, "leave -t out").into());
    }
    if args.detach && job.retry.max > 0 {
        let text = "several nodes are placed again only while somebody stays with them";
        return Err(Usage::new(text, "leave -d or the retry out").into());
    }
    // Every node's command waits for its files, be there any or not, until all hosts have accepted.
    (job.ask.stdin, job.ask.files) = (false, true);
    // Each node may spend its part.
    job.ask.budget = job.ask.budget.map(|all| part(all, gang));
    let client = Client::open(context).await?;
    let result = placed(context, args, &client, job, gang).await;
    client.close().await;
    result
}

fn part(all: Usd, gang: GangAsk) -> Usd {
    Usd::from_micros(all.micros() / u64::from(gang.members.max(1)))
}

async fn placed(
    context: &Context,
    args: &Run,
    client: &Client,
    mut job: Job,
    gang: GangAsk,
) -> anyhow::Result<()> {
    // What can't be read is said before anything is leased.
    let files = Files::pack(&job.files)?;
    let (mut first, most) = choose(context, args, client, &mut job, gang).await?;
    let mut before: Vec<KeptLease> = Vec::new();
    loop {
        let (members, mut releasing) =
            lease(context, client, &job, (gang, most), (std::mem::take(&mut first), &before))
                .await?;
        if args.detach {
            let members = start::send(members, &files).await?;
            // Until the agent has them nobody pays for them: what else there is to do comes after.
            let detached = detach(context, members, &mut job).await;
            releasing.finish().await;
            return detached;
        }
        match attend::attend(context, members, &files, &mut job).await? {
            Ended::Detached => return Ok(()),
            Ended::Over { kept, state, code } => {
                releasing.finish().await;
                let tries = kept.first().map_or(0, |kept| kept.tries);
                if !job.retry.again(state, tries, outside::now()) {
                    return if code == 0 { Ok(()) } else { Err(Quit(code).into()) };
                }
                let max = job.retry.max;
                let text = format!("{state}: all nodes are placed again ({} of {max})", tries + 1);
                say(context, &text);
                before = kept;
            }
        }
    }
}

/// Shows the offers that will be taken and, where a person can be asked, asks. With them comes what
/// all may cost together at most, where a person has agreed to that.
async fn choose(
    context: &Context,
    args: &Run,
    client: &Client,
    job: &mut Job,
    gang: GangAsk,
) -> anyhow::Result<(Vec<Offer>, Option<Price>)> {
    let mut offers = candidates(client, job, gang).await?;
    if offers.is_empty() && job.spot_or_on_demand {
        say(context, "nothing is on offer as spot now: on demand");
        job.ask.needs.capacity = CapacityType::OnDemand;
        offers = candidates(client, job, gang).await?;
    }
    for (rank, offer) in offers.iter().enumerate() {
        say(context, &format!("[{rank}] {}", describe(offer)));
    }
    let Some(total) = total(&offers) else { return Ok((offers, None)) };
    say(context, &format!("{} nodes for {total} in all", offers.len()));
    let is_asked = !args.yes && !args.detach && terminal::is_interactive();
    if is_asked && !terminal::confirm(&format!("run at {total}? [Y/n] ")).await? {
        return Err(Quit(CANCELLED).into());
    }
    // What was shown is the most that will be paid, whoever takes it in the end.
    let shown = offers.iter().map(|offer| offer.price.hour()).max().unwrap_or(Usd::MAX);
    let max = job.ask.needs.max_per_hour.map_or(shown, |max| max.min(shown));
    job.ask.needs.max_per_hour = Some(max);
    // Whoever said yes said it to a sum; else each node may cost what the dearest one does.
    Ok((offers, is_asked.then_some(total)))
}

/// What all of them cost together; `None` of none.
pub(crate) fn total(offers: &[Offer]) -> Option<Price> {
    let hours = offers.iter().map(|offer| offer.price.hour().micros());
    let sum = hours.fold(0_u64, u64::saturating_add);
    (!offers.is_empty()).then(|| Price::per_hour(Usd::from_micros(sum)))
}

async fn candidates(client: &Client, job: &Job, gang: GangAsk) -> anyhow::Result<Vec<Offer>> {
    match client.buyer.gang_candidates(&job.ask.needs, gang, true, Vec::new()).await {
        Ok(offers) if offers.iter().all(|offer| job.ask.admits(offer)) => Ok(offers),
        Ok(_) | Err(BuyerError::NothingFits(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Leases all nodes.
async fn lease(
    context: &Context,
    client: &Client,
    job: &Job,
    (gang, most): (GangAsk, Option<Price>),
    (first, before): (Vec<Offer>, &[KeptLease]),
) -> anyhow::Result<(Vec<Keeper>, welkin_node::buyer::Releasing)> {
    let id = GangId::from_bytes(outside::random());
    let nodes = u16::from(gang.members);
    let asks: Vec<_> = (0..nodes).map(|rank| start::ask_of(&job.ask, (id, rank, nodes))).collect();
    let began = Instant::now();
    let mut waiting = Waiting::new(context, client.buyer.home(), job);
    let stopped = waiting.stopped();
    let mut progress = |event: PlaceProgress| match event {
        PlaceProgress::Trying(_) => (),
        PlaceProgress::Refused(why) => {
            say(context, &format!("refused: {why}; the others are let go, trying the next"));
        }
        PlaceProgress::Waiting(wait) => {
            say(context, &format!("not enough is free; again in {}", out::duration(wait)));
        }
        PlaceProgress::Queued(indexer, event) => waiting.event(indexer, event),
    };
    let is_stopped = Notify::new();
    let stopped = async {
        no_longer_wanted(context, stopped).await;
        say(context, "nodes that were accepted are let go; Ctrl-C to leave at once");
        is_stopped.notify_one();
    };
    let twice = async {
        is_stopped.notified().await;
        let _ = roles::stop_signal().await;
    };
    let placed = tokio::select! {
        placed = place_gang(&client.buyer, &asks, (gang, most), first, &mut progress, stopped) => {
            placed?
        }
        () = twice => None,
    };
    let Some(placed) = placed else { return Err(Quit(CANCELLED).into()) };
    drop(waiting);
    let took = out::duration(began.elapsed());
    say(context, &format!("{nodes} nodes as {id}, placed in {took}"));
    let mut keepers = Vec::with_capacity(placed.members.len());
    for (rank, placed) in (0..nodes).zip(placed.members) {
        let host = out::short(&placed.offer.addr.node);
        say(context, &format!("[{rank}] lease {} on {host}", placed.lease));
        let buyer = Arc::clone(&client.buyer);
        let mut keeper = match before.get(usize::from(rank)) {
            Some(old) => Keeper::replacing(buyer, placed, old),
            None => Keeper::new(buyer, placed, job.name.clone(), job.command.clone()),
        };
        keeper.join(KeptGang { gang: id, rank, nodes });
        keepers.push(keeper);
    }
    Ok((keepers, placed.releasing))
}

/// Hands all nodes to the agent.
async fn detach(context: &Context, mut members: Vec<Keeper>, job: &mut Job) -> anyhow::Result<()> {
    leave(context, &mut members, job).await?;
    for keeper in &members {
        let lease = keeper.kept().lease;
        if context.is_json { out::json(keeper.kept())? } else { out::text(&format!("{lease}\n"))? }
    }
    if let Some(name) = members.first().and_then(|keeper| common_name(keeper.kept())) {
        let text =
            format!("run on; see `welkin logs -f {name}`, end them with `welkin stop {name}`");
        say(context, &text);
    }
    Ok(())
}

/// Hands nodes to the agent. It pays for them, and stops the others where one fails.
async fn leave(context: &Context, members: &mut [Keeper], job: &mut Job) -> anyhow::Result<()> {
    job.retry = welkin_node::buyer::Retry::default();
    for keeper in members {
        if !keeper.kept().state().0.is_final() {
            hand_over(context, keeper, job).await?;
        }
    }
    Ok(())
}

/// By what several nodes are named together: the task's name, or the gang's id.
pub(crate) fn common_name(kept: &KeptLease) -> Option<String> {
    let gang = kept.gang?;
    let is_named = !kept.name.is_empty();
    Some(if is_named { kept.name.clone() } else { out::short(&gang.gang) })
}
