//! Being there while several nodes run: what they print, their ends, and Ctrl-C.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use welkin_node::buyer::{Keeper, KeptLease, LeaseEvent};
use welkin_types::{LeaseState, Reason, Usd};

use super::start::Files;
use super::{common_name, leave};
use crate::attach::outputs::Outputs;
use crate::run::{CANCELLED, STOP_GRACE, code_of, say};
use crate::task::Job;
use crate::{Context, out};

/// Events of all nodes that wait to be told.
const EVENTS_MAX: usize = 64;

/// How being there ended.
pub(super) enum Ended {
    /// The nodes go on without us.
    Detached,
    /// All nodes are over.
    Over {
        /// How they stand, by rank.
        kept: Vec<KeptLease>,
        /// The end of the first that failed; else how all ended.
        state: LeaseState,
        /// The code to leave with.
        code: u8,
    },
}

/// What all nodes are told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Order {
    Run,
    Stop,
    Kill,
    /// Leave the lease to the agent.
    Leave,
}

/// One node and what is shown of it.
struct Member {
    rank: u16,
    keeper: Keeper,
    outputs: Outputs,
    orders: watch::Receiver<Order>,
    told: mpsc::Sender<(u16, LeaseEvent)>,
}

impl Member {
    /// Stays with the node to its end, or until it is to be left.
    async fn follow(mut self, files: Files) -> (u16, Keeper) {
        let sent = tokio::select! {
            sent = files.send_to(&mut self.keeper) => sent.map_err(Some),
            // What is to be stopped must not begin to run once all files are there.
            _ = self.orders.wait_for(|now| matches!(now, Order::Stop | Order::Kill)) => Err(None),
        };
        if let Err(error) = sent {
            // Said by its host: it will end the lease, which is heard here.
            if let Some(error) = error {
                out::note(&format!("welkin: [{}] {error:#}", self.rank));
            }
            self.keeper.stop(Duration::ZERO).await;
        }
        loop {
            tokio::select! {
                event = self.keeper.next() => {
                    let Some(event) = event else { break };
                    self.event(event).await;
                }
                changed = self.orders.changed() => {
                    if changed.is_err() || *self.orders.borrow() == Order::Leave {
                        break;
                    }
                    self.obey().await;
                }
            }
        }
        (self.rank, self.keeper)
    }

    async fn event(&mut self, event: LeaseEvent) {
        match &event {
            LeaseEvent::Reconnected => {
                self.outputs.connected(&self.keeper);
                self.obey().await;
            }
            // Everything printed is shown before the end is.
            LeaseEvent::Receipt(_) | LeaseEvent::Lost(_) => self.outputs.all_shown().await,
            _ => (),
        }
        // Whoever listened is gone with the program.
        let _ = self.told.send((self.rank, event)).await;
    }

    async fn obey(&mut self) {
        let order = *self.orders.borrow_and_update();
        match order {
            Order::Stop => self.keeper.stop(STOP_GRACE).await,
            Order::Kill => self.keeper.stop(Duration::ZERO).await,
            Order::Run | Order::Leave => (),
        }
    }
}

/// Starts all nodes and stays with them until they are over or the person leaves them.
pub(super) async fn attend(
    context: &Context,
    members: Vec<Keeper>,
    files: &Files,
    job: &mut Job,
) -> anyhow::Result<Ended> {
    let name = members.first().and_then(|keeper| common_name(keeper.kept())).unwrap_or_default();
    let (orders, _) = watch::channel(Order::Run);
    let (told, mut events) = mpsc::channel(EVENTS_MAX);
    let mut following = JoinSet::new();
    for (rank, keeper) in (0_u16..).zip(members) {
        let outputs = Outputs::show_behind(&keeper, Some(rank));
        let (orders, told) = (orders.subscribe(), told.clone());
        let member = Member { rank, keeper, outputs, orders, told };
        following.spawn(member.follow(files.clone()));
    }
    drop(told);
    let mut course =
        Course { context, orders, is_cancelled: false, failed: None, ends: BTreeMap::new() };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut is_left = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some((rank, event)) => course.event(rank, event),
                None => break,
            },
            _ = interrupt.recv() => course.interrupted(),
            _ = terminate.recv() => course.cancel(Order::Stop),
            // What was told to stop is not left to anybody.
            _ = hangup.recv() => if course.is_running() {
                is_left = true;
                course.order(Order::Leave);
            },
        }
    }
    let mut keepers = BTreeMap::new();
    while let Some(done) = following.join_next().await {
        let (rank, keeper) = done?;
        keepers.insert(rank, keeper);
    }
    let mut keepers: Vec<_> = keepers.into_values().collect();
    if is_left {
        leave(context, &mut keepers, job).await?;
        say(context, &format!("detached; `welkin logs -f {name}`"));
        return Ok(Ended::Detached);
    }
    Ok(course.over(keepers.iter().map(|keeper| keeper.kept().clone()).collect()))
}

/// How far the nodes are.
struct Course<'a> {
    context: &'a Context,
    orders: watch::Sender<Order>,
    /// Whether a person wants all of it to end.
    is_cancelled: bool,
    /// The first node that failed.
    failed: Option<(u16, LeaseState)>,
    /// The code of each command that ended, the seconds billed, and what they cost.
    ends: BTreeMap<u16, (Option<u8>, u64, Usd)>,
}

impl Course<'_> {
    /// What was ordered is only followed by what is stronger.
    fn order(&self, order: Order) {
        self.orders.send_if_modified(|now| {
            let is_stronger = order > *now;
            if is_stronger {
                *now = order;
            }
            is_stronger
        });
    }

    fn event(&mut self, rank: u16, event: LeaseEvent) {
        let say = |text: &str| say(self.context, &format!("[{rank}] {text}"));
        match event {
            LeaseEvent::Stage(stage, detail) => {
                self.stage(rank, (stage.state, stage.reason), detail)
            }
            LeaseEvent::Disconnected => say("the connection to the host is lost; trying again"),
            LeaseEvent::Reconnected => say("the host is there again"),
            LeaseEvent::Paid(_) | LeaseEvent::Checkpoint(_) => (),
            LeaseEvent::Receipt(file) => match file.verify() {
                Ok(receipt) => {
                    let code = receipt.exit.map(|exit| exit.shell_code());
                    let end = (code, receipt.usage.seconds, receipt.cost);
                    self.ends.insert(rank, end);
                }
                Err(error) => say(&format!("the receipt is wrong: {error}")),
            },
            LeaseEvent::Lost(why) => {
                say(&format!("lost: {why}; nothing more is paid; the logs are kept"));
                self.fail(rank, LeaseState::Lost);
            }
        }
    }

    fn stage(&mut self, rank: u16, (state, reason): (LeaseState, Reason), detail: Option<String>) {
        let text = match detail {
            Some(detail) => format!("{state} ({reason}): {detail}"),
            None => format!("{state} ({reason})"),
        };
        match state {
            LeaseState::Running => say(self.context, &format!("[{rank}] running; billing is on")),
            LeaseState::Succeeded => say(self.context, &format!("[{rank}] {text}")),
            LeaseState::Stopped if *self.orders.borrow() >= Order::Stop => {
                say(self.context, &format!("[{rank}] {text}"));
            }
            // Why it went wrong is said even to those who want to hear nothing else.
            state if state.is_final() => {
                out::note(&format!("welkin: [{rank}] {text}"));
                self.fail(rank, state);
            }
            _ => (),
        }
    }

    /// The first that fails ends all. What follows from that is no failure of its own.
    fn fail(&mut self, rank: u16, state: LeaseState) {
        if self.failed.is_none() && *self.orders.borrow() == Order::Run {
            self.failed = Some((rank, state));
            say(self.context, &format!("node {rank} has {state}: the others are stopped"));
            self.order(Order::Stop);
        }
    }

    fn is_running(&self) -> bool {
        *self.orders.borrow() == Order::Run
    }

    /// The first Ctrl-C stops all nodes, the second kills them.
    fn interrupted(&mut self) {
        if self.is_running() {
            say(self.context, "stopping all nodes; Ctrl-C again kills them");
            self.cancel(Order::Stop);
        } else {
            say(self.context, "killing all nodes");
            self.cancel(Order::Kill);
        }
    }

    /// A person's order: nothing is placed again after it.
    fn cancel(&mut self, order: Order) {
        self.is_cancelled = true;
        self.order(order);
    }

    fn over(self, kept: Vec<KeptLease>) -> Ended {
        let seconds: u64 = self.ends.values().map(|(_, seconds, _)| seconds).sum();
        let cost = self.ends.values().fold(0_u64, |sum, (.., cost)| sum + cost.micros());
        let (nodes, cost) = (kept.len(), Usd::from_micros(cost));
        say(self.context, &format!("{nodes} nodes: {seconds} s billed, {cost} paid"));
        let is_done = kept.iter().all(|kept| kept.state().0 == LeaseState::Succeeded);
        if self.is_cancelled && !is_done {
            return Ended::Over { kept, state: LeaseState::Stopped, code: CANCELLED };
        }
        let code_at = |rank: u16| self.ends.get(&rank).and_then(|(code, ..)| *code);
        if let Some((rank, state)) = self.failed {
            return Ended::Over { kept, state, code: code_of(state, code_at(rank)) };
        }
        // Without a failure all have succeeded, or a person has stopped those that had not.
        let unfinished = (0_u16..).zip(&kept).map(|(rank, kept)| (rank, kept.state().0));
        let last = unfinished.into_iter().find(|(_, state)| *state != LeaseState::Succeeded);
        let (rank, state) = last.unwrap_or((0, LeaseState::Succeeded));
        Ended::Over { kept, state, code: code_of(state, code_at(rank)) }
    }
}
