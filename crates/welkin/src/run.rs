//! `welkin run`: from a wish to a receipt.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use welkin_node::buyer::{
    Ask, BuyerError, Keeper, KeptLease, KeptTask, PlaceProgress, Placed, pack, place,
};
use welkin_node::outside;
use welkin_proto::Offer;
use welkin_types::task::Text;
use welkin_types::{CapacityType, LeaseState, Usd};

use crate::attach::{self, Ended};
use crate::cli::{Run, TaskArgs};
use crate::client::{self, Client};
use crate::task::{self, Job};
use crate::waiting::Waiting;
use crate::{Context, Quit, Usage, agent, gang, out, reservations, roles, terminal};

/// Exit code of something cancelled by the person in front of it.
pub(crate) const CANCELLED: u8 = 130;

/// `welkin run`
pub(crate) async fn run(context: &Context, args: &Run) -> anyhow::Result<()> {
    let named = args.task.reserve.as_ref();
    let named = named.map(|text| reservations::find(&client::home(context), text)).transpose()?;
    let reserve = named.map(|kept| kept.reservation.to_string());
    let (spec, folder) = task::spec(&TaskArgs { reserve, ..args.task.clone() })?;
    let mut job = task::job(&spec, &folder)?;
    if let Some(Text(id)) = &spec.price.reserve {
        let kept = reservations::find(&client::home(context), &id.to_string())?;
        reservations::take_all(&kept, &spec, &mut job);
    }
    if job.gang.is_some() {
        return gang::run(context, args, job).await;
    }
    if args.tty {
        let size = terminal::size().ok_or_else(|| {
            Usage::new("-t needs a terminal, and standard output is none", "leave -t out")
        })?;
        job.ask.tty = Some(size);
    }
    job.ask.stdin = !args.detach && !args.no_stdin;
    let client = Client::open(context).await?;
    let result = placed(context, args, &client, &mut job).await;
    client.close().await;
    result
}

async fn placed(
    context: &Context,
    args: &Run,
    client: &Client,
    job: &mut Job,
) -> anyhow::Result<()> {
    let mut first = choose(context, args, client, job).await?;
    let mut before = None;
    loop {
        let keeper = lease(context, client, job, std::mem::take(&mut first), before).await?;
        if args.detach {
            return detach(context, keeper, job).await;
        }
        match attach::attach(context, keeper, job).await? {
            Ended::Detached => return Ok(()),
            Ended::Lease { kept, code } => {
                let ((state, _), tries) = (kept.state(), kept.tries);
                if !job.retry.again(state, tries, outside::now()) {
                    return if code == 0 { Ok(()) } else { Err(Quit(code).into()) };
                }
                let max = job.retry.max;
                say(context, &format!("{state}: placed again ({} of {max})", tries + 1));
                before = Some(*kept);
            }
        }
    }
}

pub(crate) fn say(context: &Context, text: &str) {
    if !context.is_quiet {
        out::note(&format!("welkin: {text}"));
    }
}

/// Shows the offer that will be taken and, where a person can be asked, asks.
async fn choose(
    context: &Context,
    args: &Run,
    client: &Client,
    job: &mut Job,
) -> anyhow::Result<Vec<Offer>> {
    if let Some(id) = job.ask.launch.terms.reservation {
        agent::adopt_reservation(context, id).await?;
        let kept = reservations::find(client.buyer.home(), &id.to_string())?;
        say(context, &reservations::running_on(&kept));
        return Ok(Vec::new());
    }
    let mut offers = candidates(client, &job.ask).await?;
    if offers.is_empty() && job.spot_or_on_demand {
        say(context, "nothing is on offer as spot now: on demand");
        job.ask.needs.capacity = CapacityType::OnDemand;
        offers = candidates(client, &job.ask).await?;
    }
    let Some(best) = offers.first() else { return Ok(offers) };
    say(context, &describe(best));
    // What was shown is the most that will be paid, whoever takes it in the end.
    let shown = offers.iter().map(|offer| offer.price.hour()).max().unwrap_or(Usd::MAX);
    let is_asked = !args.yes && !args.detach && terminal::is_interactive();
    if is_asked && !terminal::confirm(&format!("run at {}? [Y/n] ", best.price)).await? {
        return Err(Quit(CANCELLED).into());
    }
    let max = job.ask.needs.max_per_hour.map_or(shown, |max| max.min(shown));
    job.ask.needs.max_per_hour = Some(max);
    Ok(offers)
}

/// What is on offer. Nothing, where everything may only be taken for a moment: waiting is `place`'s
/// work.
async fn candidates(client: &Client, ask: &Ask) -> anyhow::Result<Vec<Offer>> {
    match client.buyer.candidates(&ask.needs, 3, true, Vec::new()).await {
        Ok(mut offers) => {
            offers.retain(|offer| ask.admits(offer));
            Ok(offers)
        }
        Err(BuyerError::NothingFits(_)) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// `, spot: taken back with 30 s notice`; nothing for an offer on demand.
fn terms(offer: &Offer) -> String {
    match offer.capacity {
        CapacityType::OnDemand => String::new(),
        CapacityType::Spot => {
            format!(", spot: taken back with {} s notice", offer.notice_seconds)
        }
        CapacityType::Reserved => ", reserved".to_owned(),
    }
}

pub(crate) fn describe(offer: &Offer) -> String {
    format!(
        "offer {} {} in {} for {}{} ({}; isolation {}; online {})",
        out::short(&offer.container),
        offer.class,
        offer.region,
        offer.price,
        terms(offer),
        offer.resources,
        offer.tier,
        out::percent(offer.online_bp)
    )
}

/// Places the job and sends its files.
async fn lease(
    context: &Context,
    client: &Client,
    job: &Job,
    first: Vec<Offer>,
    before: Option<KeptLease>,
) -> anyhow::Result<Keeper> {
    let mut ask = job.ask.clone();
    let entries = before.as_ref().map_or_else(|| job.files.clone(), |old| old.files(&job.files));
    ask.files = !entries.is_empty();
    let files = if ask.files { Some(pack(&entries)?) } else { None };
    let began = Instant::now();
    let mut waiting = Waiting::new(context, client.buyer.home(), job);
    let stopped = waiting.stopped();
    let mut progress = |event: PlaceProgress| match event {
        PlaceProgress::Trying(_) => (),
        PlaceProgress::Refused(why) => say(context, &format!("refused: {why}; trying the next")),
        PlaceProgress::Waiting(wait) => {
            say(context, &format!("everything is busy; again in {}", out::duration(wait)));
        }
        PlaceProgress::Queued(indexer, event) => waiting.event(indexer, event),
    };
    let placing = place(&client.buyer, &ask, first, &mut progress);
    let placed: Placed = tokio::select! {
        placed = placing => placed?,
        () = no_longer_wanted(context, stopped) => return Err(Quit(CANCELLED).into()),
    };
    drop(waiting);
    let host = out::short(&placed.offer.addr.node);
    let text = format!("lease {} on {host}", placed.lease);
    say(context, &format!("{text}, placed in {}", out::duration(began.elapsed())));
    let buyer = Arc::clone(&client.buyer);
    let mut keeper = match &before {
        Some(old) => Keeper::replacing(buyer, placed, old),
        None => Keeper::new(buyer, placed, job.name.clone(), job.command.clone()),
    };
    if let Some(files) = files {
        let mut files = tokio::fs::File::from_std(files);
        let sent = tokio::select! {
            sent = keeper.files(&mut files) => sent,
            stop = roles::stop_signal() => {
                stop?;
                keeper.stop(Duration::ZERO).await;
                return Err(Quit(CANCELLED).into());
            }
        };
        keeper.files_sent(sent).await?;
    }
    Ok(keeper)
}

/// Ends when the user wants a search to stop: by a signal, or with `welkin stop`. The search's place in
/// the queue is given up with the connection.
pub(crate) async fn no_longer_wanted(context: &Context, stopped: impl Future<Output = ()>) {
    tokio::select! {
        stop = roles::stop_signal() => if let Err(error) = stop {
            say(context, &format!("stopped: no signal could be waited for: {error}"));
        },
        () = stopped => say(context, "stopped while it waited"),
    }
}

/// Hands the lease to the agent, which from now on pays for it and places it again where the task
/// says so.
pub(crate) async fn hand_over(
    context: &Context,
    keeper: &mut Keeper,
    job: &Job,
) -> anyhow::Result<()> {
    let lease = keeper.kept().lease;
    if keeper.kept().tries < job.retry.max {
        let absolute = |(from, to, exact): &(PathBuf, String, bool)| {
            let from = std::path::absolute(from)
                .with_context(|| format!("failed to find {}", from.display()))?;
            Ok((from, to.clone(), *exact))
        };
        let files = job.files.iter().map(absolute).collect::<anyhow::Result<_>>()?;
        let task = KeptTask::new(&job.ask, files, job.retry);
        keeper.buyer().home().save_task(lease, &task).map_err(BuyerError::Home)?;
    }
    keeper.mark(true);
    agent::adopt(context, lease, &job.ask.secrets).await
}

async fn detach(context: &Context, mut keeper: Keeper, job: &Job) -> anyhow::Result<()> {
    let lease = keeper.kept().lease;
    hand_over(context, &mut keeper, job).await?;
    if context.is_json {
        return out::json(keeper.kept());
    }
    out::text(&format!("{lease}\n"))?;
    let short = out::short(&lease);
    say(
        context,
        &format!("runs on; see `welkin logs -f {short}`, end it with `welkin stop {short}`"),
    );
    Ok(())
}

/// The exit code for the end of a lease: the job's own where it has one.
pub(crate) const fn code_of(state: LeaseState, job: Option<u8>) -> u8 {
    match (state, job) {
        (LeaseState::Succeeded, _) => 0,
        (LeaseState::Failed, Some(code)) => code,
        (LeaseState::Stopped, _) => CANCELLED,
        (LeaseState::Expired, _) => 78,
        (LeaseState::Lost | LeaseState::Preempted, _) => 69,
        (_, Some(code)) => code,
        (_, None) => 1,
    }
}

/// How long a command may take to end after being asked.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);
