//! Mystery sessions: a checker that is an ordinary buyer, and says afterwards what it found.
//!
//! The lease goes through the same code as any buyer's, with an account and a key of its own that are
//! used once; what is asked, when and of whom is drawn from randomness that nobody else has. Only when
//! the session is over does the checker sign what it measured, with the word of that account.

mod budget;
mod task;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{debug, info};
use welkin_proto::digest::{Series, SessionDigests, Side};
use welkin_proto::epoch::Statement;
use welkin_proto::index::{IndexHello, IndexRequest};
use welkin_proto::lease::Output;
use welkin_proto::{ALPN_INDEX, Offer};
use welkin_types::task::Needs;
use welkin_types::{LeaseState, MoneyError, Price, Reason, UnixMillis, Usd};

use super::unheard::Unheard;
use super::{Deps, deliver};
use crate::buyer::{Buyer, BuyerError, Home, Keeper, LeaseEvent, LogCopy, LogEvent, place};
use crate::connect::Caller;
use crate::network::Network;
use crate::settlement::{ChainConfig, SettlementError};
use crate::{Shutdown, outside};
use budget::Budget;
use task::{Drawn, Task};

/// What a host sets aside of a lease at first, in seconds of its price: a buyer must have it.
const HELD_SECONDS: u64 = 600;
/// No session runs longer, in seconds.
const SECONDS_MAX: u32 = 3_600;
/// How long a session may take to start, beyond what it runs.
const START_MAX: Duration = Duration::from_secs(300);
/// How long the rest of the output may take once a session is over.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of output that are compared; a task prints far fewer.
const OUTPUT_BYTES_MAX: usize = 4_096;
/// Pause before a network that does not answer is asked again.
const PAUSE: Duration = Duration::from_secs(10);

/// Settings of mystery sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MysteryConfig {
    /// Whether this checker has any.
    pub enabled: bool,
    /// The most sessions in an epoch.
    pub sessions_per_epoch: u32,
    /// The most money put in for the sessions of an epoch, in dollars.
    pub usd_per_epoch: String,
    /// The most for one session: what a host sets aside, ten minutes of its price, must fit in it.
    pub usd_per_session: String,
    /// The longest that a session runs, in seconds.
    pub seconds_max: u32,
}

impl Default for MysteryConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            sessions_per_epoch: 4,
            usd_per_epoch: "1.00".to_owned(),
            usd_per_session: "0.25".to_owned(),
            seconds_max: 300,
        }
    }
}

/// What the sessions of an epoch may come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MysteryBounds {
    /// Sessions in an epoch.
    pub sessions: u32,
    /// Money put in for them.
    pub money: Usd,
    /// Of it for one session.
    pub money_each: Usd,
    /// How long each runs, in seconds.
    pub seconds_max: u32,
}

impl MysteryConfig {
    /// The bounds; none where there are to be no sessions.
    ///
    /// # Errors
    ///
    /// [`MoneyError`] where an amount can't be read.
    pub fn bounds(&self) -> Result<Option<MysteryBounds>, MoneyError> {
        let bounds = MysteryBounds {
            sessions: self.sessions_per_epoch,
            money: self.usd_per_epoch.parse()?,
            money_each: self.usd_per_session.parse()?,
            seconds_max: self.seconds_max.clamp(1, SECONDS_MAX),
        };
        let has_any = self.enabled && bounds.sessions > 0 && !bounds.money.is_zero();
        Ok(has_any.then_some(bounds))
    }
}

/// What mystery sessions need besides a checker's own parts.
#[derive(Clone, Debug)]
pub struct MysteryDeps {
    /// How many, and for how much.
    pub bounds: MysteryBounds,
    /// The network, as any buyer has it.
    pub network: Network,
    /// How the chain is reached.
    pub chain: ChainConfig,
    /// Where its accounts are, and what was spent.
    pub dir: PathBuf,
}

/// Why a session came to nothing. None of it says anything about a host.
#[derive(Debug, thiserror::Error)]
enum MysteryError {
    #[error("no lease was had")]
    Buyer(#[from] BuyerError),
    #[error("no money was had for it")]
    Money(#[source] SettlementError),
    #[error("nothing that it could use is on offer now: it tries again at its next moment")]
    Nothing,
    #[error(
        "nothing on offer is so cheap that a session of {seconds} s fits into {most}: set \
         `checker.mystery.usd_per_session` or `usd_per_epoch` higher, or `seconds_max` lower"
    )]
    Dear { seconds: u32, most: Usd },
    #[error("the session was lost before its receipt: {0}")]
    Lost(String),
    #[error("its output was not had")]
    Unseen,
    #[error("it ended by this side: {0}")]
    Own(Reason),
    #[error("the session did not end in time")]
    Endless,
    #[error("the command never ran")]
    NotRun,
    #[error("what was measured can't be signed")]
    Unsigned,
}

/// Has sessions for ever, at moments that nobody else knows.
pub(super) async fn run(
    deps: Arc<Deps>,
    mystery: MysteryDeps,
    unheard: Unheard,
    shutdown: Shutdown,
) {
    let epoch_seconds = loop {
        match deps.settle.epoch(0).await {
            Ok(view) => break view.epoch_seconds.max(1),
            Err(error) => {
                debug!(error = %crate::chain(&error), "the length of an epoch is not known")
            }
        }
        tokio::time::sleep(PAUSE).await;
    };
    info!(sessions = mystery.bounds.sessions, money = %mystery.bounds.money, "mystery sessions are on");
    let mut budget = Budget::load(&mystery.dir);
    loop {
        let now = outside::now();
        let epoch = now.0 / 1_000 / epoch_seconds;
        let moment = next_moment(now, epoch_seconds, budget.left(epoch, &mystery.bounds).sessions);
        tokio::time::sleep(moment.since(outside::now())).await;
        let epoch = outside::now().0 / 1_000 / epoch_seconds;
        let left = budget.left(epoch, &mystery.bounds);
        if left.sessions == 0 || left.money.is_zero() {
            continue;
        }
        // Counted before: what fails costs, too, and so does what a stop cuts off.
        let most = left.money.min(mystery.bounds.money_each);
        if !budget.begin(epoch, most) {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let session =
            Session { deps: &deps, mystery: &mystery, unheard: &unheard, shutdown: &shutdown };
        let (put_in, ended) = session.have(most).await;
        budget.give_back(epoch, most.saturating_sub(put_in));
        match ended {
            Ok(found) => info!(lease = %found.series.lease, "a mystery session is over"),
            Err(error) => info!(why = %crate::chain(&error), "a mystery session came to nothing"),
        }
    }
}

/// A moment in what is left of the epoch for each session that is left; else in the next epoch.
fn next_moment(now: UnixMillis, epoch_seconds: u64, left: u32) -> UnixMillis {
    let epoch_ms = epoch_seconds.saturating_mul(1_000);
    let end = (now.0 / epoch_ms + 1).saturating_mul(epoch_ms);
    let draw = u64::from_le_bytes(outside::random());
    match u64::from(left) {
        0 => UnixMillis(end.saturating_add(draw % epoch_ms.max(1))),
        left => {
            let share = end.saturating_sub(now.0) / left;
            UnixMillis(now.0.saturating_add(draw % share.max(1)))
        }
    }
}

/// One session.
struct Session<'a> {
    deps: &'a Arc<Deps>,
    mystery: &'a MysteryDeps,
    unheard: &'a Unheard,
    shutdown: &'a Shutdown,
}

impl Session<'_> {
    /// Leases, runs, compares, signs and reports. The account's folder stays only if money may be left.
    async fn have(&self, most: Usd) -> (Usd, Result<SessionDigests, MysteryError>) {
        let name = u64::from_le_bytes(outside::random());
        let dir = self.mystery.dir.join("accounts").join(format!("{name:016x}"));
        let shutdown = self.shutdown.child();
        let mut put_in = Usd::ZERO;
        let ended = self.have_in(&dir, most, &mut put_in, &shutdown).await;
        shutdown.ask();
        let has_money = !put_in.is_zero();
        // Of an account with money the key is needed, and not what its sessions printed.
        let _ = std::fs::remove_dir_all(dir.join("logs"));
        if let (false, Err(error)) = (has_money, std::fs::remove_dir_all(&dir)) {
            debug!(%error, "the folder of an account that was not used stays");
        }
        (put_in, ended)
    }

    async fn have_in(
        &self,
        dir: &Path,
        most: Usd,
        put_in: &mut Usd,
        shutdown: &Shutdown,
    ) -> Result<SessionDigests, MysteryError> {
        let MysteryDeps { bounds, network, chain, .. } = self.mystery;
        let home = Home::new(dir.to_owned());
        let opened = Buyer::open_with(network, home, chain, shutdown.clone()).await;
        let buyer = Arc::new(opened?);
        let result = async {
            let drawn = Drawn::of(outside::random(), bounds.seconds_max);
            let needs = drawn.needs();
            let offer = choose(&buyer, &needs, most, drawn.task.seconds()).await?;
            let amount = needed(offer.price, drawn.task.seconds()).min(most);
            // Noted before: the money may arrive though the answer does not.
            *put_in = amount;
            buyer.settle().fund(buyer.account(), amount).await.map_err(MysteryError::Money)?;
            self.lease(&buyer, drawn, needs, offer).await
        };
        let result = result.await;
        buyer.close().await;
        result
    }

    async fn lease(
        &self,
        buyer: &Arc<Buyer>,
        drawn: Drawn,
        needs: Needs,
        offer: Offer,
    ) -> Result<SessionDigests, MysteryError> {
        let ask = drawn.ask(needs, offer.price);
        let placed = place(buyer, &ask, vec![offer], &mut |_| ()).await?;
        let command = ask.launch.argv.join(" ");
        let mut keeper = Keeper::new(Arc::clone(buyer), placed, String::new(), command);
        let longest = START_MAX + Duration::from_secs(2 * u64::from(drawn.task.seconds()));
        let ended = tokio::time::timeout(longest, follow(&mut keeper, &drawn.task)).await;
        let is_right = match ended {
            Ok(ended) => ended?,
            Err(_) => {
                keeper.stop(Duration::ZERO).await;
                return Err(MysteryError::Endless);
            }
        };
        let own = keeper.digests().last().cloned().ok_or(MysteryError::NotRun)?;
        let series = found(own, is_right);
        let deps = self.deps;
        let account = buyer.account_key();
        let signed = SessionDigests::by_checker(&deps.domain, &deps.key, account, series);
        let signed = signed.map_err(|_| MysteryError::Unsigned)?;
        let statement = Statement::Digests(Box::new(signed.clone()));
        let hello = IndexHello::Ask(Box::new(IndexRequest::State(Box::new(statement))));
        let caller = |addr: &_| Caller::new(deps.endpoint.clone(), Clone::clone(addr), ALPN_INDEX);
        let indexers: Vec<_> = deps.indexers.iter().map(caller).collect();
        deliver(Arc::new(indexers), hello, self.unheard.clone()).await;
        Ok(signed)
    }
}

/// What is said as a checker: a session with a wrong result was of no use to its buyer.
fn found(own: Series, is_right: bool) -> Series {
    let mut series = Series { side: Side::Checker, ..own };
    if !is_right {
        series.minutes.iter_mut().for_each(|digest| digest.answered = 0);
    }
    series
}

fn needed(price: Price, seconds: u32) -> Usd {
    price.cost(HELD_SECONDS.saturating_add(2 * u64::from(seconds)))
}

/// One of the candidates that any buyer with this wish is shown, by chance.
async fn choose(
    buyer: &Buyer,
    needs: &Needs,
    most: Usd,
    seconds: u32,
) -> Result<Offer, MysteryError> {
    let mut offers = buyer.candidates(needs, 3, true, Vec::new()).await?;
    if offers.is_empty() {
        return Err(MysteryError::Nothing);
    }
    offers.retain(|offer| needed(offer.price, seconds) <= most);
    let count = offers.len();
    let draw = usize::from(u16::from_le_bytes(outside::random()));
    let place = draw.checked_rem(count).ok_or(MysteryError::Dear { seconds, most })?;
    Ok(offers.swap_remove(place))
}

/// Follows a lease to its receipt, as who runs it in the foreground does. Says whether it printed what
/// it should and ended well.
async fn follow(keeper: &mut Keeper, task: &Task) -> Result<bool, MysteryError> {
    let lease = keeper.kept().lease;
    let mut out = LogCopy::new(keeper.buyer(), lease, Output::Stdout);
    let mut err = LogCopy::new(keeper.buyer(), lease, Output::Stderr);
    if let Some(line) = keeper.line() {
        out.connect_on(&line).await?;
        err.connect_on(&line).await?;
    }
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(async move { read(&mut err).await });
    let mut printing = tokio::task::JoinSet::new();
    printing.spawn(async move { read(&mut out).await });
    while let Some(event) = keeper.next().await {
        match event {
            LeaseEvent::Receipt(_) => break,
            LeaseEvent::Lost(why) => return Err(MysteryError::Lost(why)),
            _ => (),
        }
    }
    let printed = tokio::time::timeout(OUTPUT_TIMEOUT, printing.join_next()).await;
    let printed = printed.ok().flatten().and_then(Result::ok).flatten();
    let (state, reason) = keeper.kept().state();
    if matches!(reason, Reason::Uncovered | Reason::FundsExhausted | Reason::BuyerStopped) {
        return Err(MysteryError::Own(reason));
    }
    // Nothing good is said of an output that was not seen.
    let printed = printed.ok_or(MysteryError::Unseen)?;
    Ok(printed == task.expected().as_bytes() && state == LeaseState::Succeeded)
}

/// All that is printed; nothing where it is not known.
async fn read(copy: &mut LogCopy) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        match copy.next().await {
            LogEvent::Data(_, bytes) => {
                all.extend_from_slice(&bytes);
                // No task prints so much, and what is read is written down, too.
                if all.len() >= OUTPUT_BYTES_MAX {
                    return Some(all);
                }
            }
            LogEvent::End => return Some(all),
            LogEvent::Gap(_) | LogEvent::Broken(_) => return None,
        }
    }
}
