//! The task that owns one lease: it feeds the state machine and carries out what that wants.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};
use welkin_lease::{Effect, HostLease, Input, LeaseRecord};
use welkin_proto::digest::DigestUpdate;
use welkin_proto::lease::{Secret, TermSize};
use welkin_proto::{Exit, Receipt, Signed};
use welkin_store::Batch;
use welkin_types::{BasisPoints, LeaseId, LeaseState, Reason, ReservationId, UnixMillis, Usd};

use super::Host;
use super::cashier::{Cashier, Said};
use super::evidence::UNSIGNED_AFTER;
use super::input::Stdin;
use super::quality::Quality;
use super::registry::{Command, LeaseHandle, View};
use super::restore::LEASES;
use super::sandboxes::RunningSandbox;
use super::spool::Spool;
use super::stdio::{Ours, Pumps};
use crate::outside;

mod money;
mod sandbox;

pub(crate) use money::hold;

/// The most commands that wait for a lease's task.
const COMMANDS_MAX: usize = 64;

/// What only lives in memory: it dies with this process.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    pub(crate) secrets: Vec<(String, Secret)>,
    pub(crate) tty: Option<TermSize>,
    pub(crate) stdin: bool,
    pub(crate) files: bool,
}

/// A sandbox found after a restart, with its kept ends.
#[derive(Debug)]
pub(crate) struct Survivor {
    pub(crate) sandbox: RunningSandbox,
    pub(crate) ours: Option<Ours>,
}

/// Where a lease's logs are.
pub(crate) fn log_dir(host: &Host, lease: LeaseId) -> PathBuf {
    host.dir.join("logs").join(lease.to_string())
}

/// Starts the task of a lease and makes it known.
pub(crate) fn spawn(
    host: &Arc<Host>,
    machine: HostLease,
    fresh: Fresh,
    survivor: Option<Survivor>,
) {
    let record = machine.record().clone();
    let lease = record.order.message.lease;
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    let buyer = record.order.message.buyer;
    let (redeemed, promised) = record.covered();
    let order = &record.order.message;
    // Until the settlement service says how it stands.
    let secured = promised.checked_add(hold(order.price, order.budget)).unwrap_or(order.budget);
    // Before anybody looks.
    let view = View { detail: machine.waits_for(), ..View::of(record.clone()) };
    let (publish, view) = watch::channel(view);
    host.registry.insert(lease, LeaseHandle { buyer, commands, view });
    let quality = if record.stages.iter().any(|stage| stage.state == LeaseState::Running) {
        Quality::load(&host.db, &record)
    } else {
        Quality::new(&record)
    };
    let task = LeaseTask {
        host: Arc::clone(host),
        lease,
        machine,
        publish,
        fresh,
        spool: None,
        sandbox: None,
        pumps: None,
        wants_sandbox: false,
        lacked_sandbox: false,
        checkpoint: JoinSet::new(),
        cashier: Cashier::new(host.settle.clone(), lease),
        quality,
        redeemed,
        secured,
    };
    host.shutdown.spawn_until_asked("lease", task.run(queue, survivor));
}

struct LeaseTask {
    host: Arc<Host>,
    lease: LeaseId,
    machine: HostLease,
    publish: watch::Sender<View>,
    fresh: Fresh,
    spool: Option<Spool>,
    sandbox: Option<RunningSandbox>,
    pumps: Option<Pumps>,
    /// Whether a sandbox has to be got ready.
    wants_sandbox: bool,
    /// Whether the host could make none. One that was made and whose command did not start tells of
    /// the command as likely.
    lacked_sandbox: bool,
    /// The command that writes the checkpoint.
    checkpoint: JoinSet<()>,
    cashier: Cashier,
    quality: Quality,
    /// Covered seconds of the last voucher that was cashed.
    redeemed: u64,
    /// What was paid, and what is aside beyond it, when that was last known.
    secured: Usd,
}

/// What a task waits for besides commands and time.
enum Happening {
    Command(Option<Command>),
    Prepared(Result<RunningSandbox, (Reason, String)>),
    Exited(Option<Exit>),
    Said(Said),
    Checkpointed,
    Read(welkin_runtime::Stats),
    Time,
}

impl LeaseTask {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>, survivor: Option<Survivor>) {
        if let Some(survivor) = survivor {
            self.adopt(survivor);
        }
        let mut preparing = None;
        let mut wake = self.drain().await;
        while !self.machine.is_over() {
            if std::mem::take(&mut self.wants_sandbox) {
                preparing = Some(Box::pin(self.prepare()));
            }
            let happening = tokio::select! {
                command = queue.recv() => Happening::Command(command),
                prepared = async {
                    match preparing.as_mut() {
                        Some(preparing) => preparing.await,
                        None => std::future::pending().await,
                    }
                } => Happening::Prepared(prepared),
                exit = exited(self.sandbox.as_mut()) => Happening::Exited(exit),
                said = self.cashier.said() => Happening::Said(said),
                Some(_) = self.checkpoint.join_next() => Happening::Checkpointed,
                stats = self.quality.read() => Happening::Read(stats),
                () = sleep_until(wake) => Happening::Time,
            };
            match happening {
                Happening::Command(Some(command)) => self.command(command),
                Happening::Command(None) => return,
                Happening::Prepared(prepared) => {
                    preparing = None;
                    self.prepared(prepared);
                }
                Happening::Exited(Some(exit)) => self.exited(exit),
                Happening::Exited(None) => {
                    let text = "the sandbox helper died and its sandboxes with it".to_owned();
                    self.input(Input::Broken(Reason::SandboxLost, text));
                }
                Happening::Said(said) => self.said(said),
                Happening::Checkpointed => self.input(Input::Checkpointed),
                Happening::Read(stats) => {
                    self.quality.worked(stats);
                    continue;
                }
                Happening::Time => self.input(Input::Tick),
            }
            self.start_if_complete();
            wake = self.drain().await;
            if self.machine.record().state().is_final() {
                preparing = None;
            }
        }
        self.await_signature(&mut queue).await;
    }

    async fn await_signature(&mut self, queue: &mut mpsc::Receiver<Command>) {
        // The receipt is made; the buyer may still sign under it.
        let mut unsigned = std::pin::pin!(tokio::time::sleep(UNSIGNED_AFTER));
        let mut is_told = false;
        loop {
            let command = tokio::select! {
                command = queue.recv() => command,
                () = &mut unsigned, if !is_told => {
                    is_told = true;
                    self.publish_end();
                    continue;
                }
            };
            match command {
                Some(Command::Digest(update)) => self.digest(*update),
                Some(Command::Ack(ack)) => {
                    self.machine.record_mut().ack = Some(*ack);
                    self.publish_end();
                    self.save().await;
                    self.show(None);
                    return;
                }
                Some(_) => (),
                None => return,
            }
        }
    }

    /// Tells indexers of the receipt and of what was measured.
    fn publish_end(&self) {
        let digests = self.quality.signed(&self.host);
        self.host.finished.push(&self.host.domain, self.machine.record(), digests);
    }

    fn adopt(&mut self, survivor: Survivor) {
        let exit = survivor.sandbox.known_exit();
        if let Some(ours) = survivor.ours {
            let input = Stdin::kept(ours.input());
            self.pump(ours, input);
        }
        let found = match exit {
            Some(exit) => welkin_lease::Found::Exited(exit),
            None => welkin_lease::Found::Running,
        };
        self.sandbox = Some(survivor.sandbox);
        self.input(Input::Restored(found));
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(outside::now(), input);
    }

    /// A command that fails on broken hardware did not fail by itself.
    fn exited(&mut self, exit: Exit) {
        let record = self.machine.record();
        let is_running = matches!(record.state(), LeaseState::Starting | LeaseState::Running);
        let has_failed = is_running && exit.code != Some(0) && !exit.oom;
        let blamed = has_failed.then(|| self.host.health.blame(&self.host, &record.devices));
        match blamed.flatten() {
            Some((reason, detail)) => {
                self.machine.record_mut().exit = Some(exit);
                self.input(Input::Fault(reason, detail));
            }
            None => self.input(Input::Exited(exit)),
        }
    }

    /// The machine hears of the sandbox once the files are there, too.
    fn start_if_complete(&mut self) {
        let record = self.machine.record();
        let is_waiting = record.state() == LeaseState::Pulling && record.sandbox == [0; 16];
        let has_files = !self.fresh.files || self.spool.is_some();
        if let Some(sandbox) = &self.sandbox
            && is_waiting
            && has_files
        {
            let id = sandbox.id();
            self.input(Input::Prepared(id));
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Voucher(voucher, heard) => {
                self.quality.paid(heard);
                self.input(Input::Voucher(voucher));
            }
            Command::Digest(update) => self.digest(*update),
            Command::Stop(grace) => self.input(Input::Stop(grace)),
            Command::Placed(devices) => self.input(Input::Placed(devices)),
            Command::Preempt => self.input(Input::Preempt),
            Command::ReservationEnded => self.input(Input::ReservationEnded),
            Command::Drain(reason) => self.input(Input::Drain(reason)),
            Command::Fault(reason, detail) => self.input(Input::Fault(reason, detail)),
            Command::Fetched => self.input(Input::Fetched),
            Command::Signal(signal) => {
                if let Some(sandbox) = &self.sandbox {
                    sandbox.signal_soon(&self.host.shutdown, signal);
                }
            }
            Command::Resize(size) => {
                if let Some(pumps) = &self.pumps {
                    pumps.resize(size);
                }
            }
            // Files after the start, or a second time, are of no use to anybody.
            Command::Files(_) if !self.is_before_start() => (),
            Command::Files(Ok(spool)) => self.spool = Some(spool),
            Command::Files(Err(detail)) => {
                self.input(Input::Broken(Reason::FilesUnusable, detail));
            }
            // Signed before the end: nothing to sign yet.
            Command::Ack(_) => (),
        }
    }

    fn is_before_start(&self) -> bool {
        matches!(self.machine.record().state(), LeaseState::Placing | LeaseState::Pulling)
    }

    /// Carries out what the machine wants; returns when to tick.
    async fn drain(&mut self) -> Option<UnixMillis> {
        loop {
            match self.machine.poll() {
                Effect::Idle { wake_at, .. } => return wake_at,
                Effect::Save => self.save().await,
                Effect::Tell(stage, detail) => {
                    info!(lease = %self.lease, state = %stage.state, reason = %stage.reason, "lease");
                    self.quality.stage(self.machine.record());
                    self.show(detail);
                }
                Effect::Prepare => self.wants_sandbox = true,
                Effect::Start => self.start().await,
                Effect::Notice(until) => self.notice(until).await,
                Effect::Checkpoint(until) => self.begin_checkpoint(until),
                Effect::Offer(until) => {
                    self.publish.send_modify(|view| view.offered = Some(until));
                }
                Effect::Terminate => {
                    if let Some(sandbox) = &self.sandbox {
                        sandbox.signal_soon(&self.host.shutdown, 15);
                    }
                }
                Effect::Kill => {
                    if let Some(sandbox) = &self.sandbox {
                        sandbox.kill().await;
                    }
                }
                Effect::Destroy => self.destroy().await,
                Effect::AskVoucher { seconds, covered } => {
                    self.measure();
                    self.publish.send_modify(|view| {
                        view.asked = (view.asked.0 + 1, seconds, covered);
                    });
                }
                // Its reservation pays.
                Effect::Redeem if self.reservation().is_some() => (),
                Effect::Close if self.reservation().is_some() => {
                    self.input(Input::Settled(Usd::ZERO));
                }
                Effect::Redeem => self.redeem(),
                Effect::Close => self.cashier.close(self.machine.record().voucher.clone()),
                Effect::Receipt => self.receipt().await,
            }
        }
    }

    /// Takes in what the buyer measured.
    fn digest(&mut self, update: DigestUpdate) {
        if self.quality.update(&self.host, self.machine.record(), update) {
            self.quality.save(&self.host.db);
        }
    }

    /// The command runs, and is looked at.
    fn measure(&mut self) {
        let record = self.machine.record();
        if self.quality.pulse(self.host.sandboxes.as_ref(), record) {
            self.quality.save(&self.host.db);
        }
    }

    /// The reservation that it runs on, if it does.
    fn reservation(&self) -> Option<ReservationId> {
        self.machine.record().launch.terms.reservation
    }

    fn show(&self, detail: Option<String>) {
        self.publish.send_modify(|view| {
            view.record = Arc::new(self.machine.record().clone());
            // More about the present state; that of the last stays.
            let state = view.record.state();
            let is_present = state.is_final() || state == LeaseState::Placing;
            let kept = view.detail.take().filter(|_| is_present);
            view.detail = detail.or(kept);
            view.terminal = self.pumps.as_ref().map(|pumps| pumps.terminal.clone());
        });
    }

    /// Queues the record for the disk. Ends are waited for, and that the command is to end: a buyer
    /// who has heard that pays no more. On the way to running it is not: after a crash the sandbox
    /// itself tells that it runs.
    async fn save(&self) {
        let record = self.machine.record();
        let mut batch = Batch::default();
        match postcard::to_stdvec(record) {
            Ok(bytes) => batch.put(LEASES, self.lease.as_bytes(), bytes),
            Err(error) => warn!(%error, "a lease can't be encoded"),
        }
        let written = self.host.db.queue(batch);
        let state = record.state();
        if (state.is_final() || state == LeaseState::Stopping)
            && let Err(error) = written.await
        {
            warn!(%error, lease = %self.lease, "a lease can't be written down");
        }
    }

    async fn receipt(&mut self) {
        let record = self.machine.record();
        let order = &record.order.message;
        let cost = self.machine.cost();
        let receipt = Receipt {
            lease: order.lease,
            buyer: order.buyer,
            operator: order.operator,
            host: order.host,
            container: order.container,
            price: order.price,
            stages: record.stages.clone(),
            exit: record.exit,
            usage: record.usage,
            cost,
            fee: cost.split(BasisPoints::SERVICE_FEE).0,
            logs: record.logs,
            wipe: record.wipe.unwrap_or_default(),
            matched: record.matched,
        };
        match Signed::sign(&self.host.domain, &self.host.key, &receipt) {
            Ok(signed) => self.machine.record_mut().receipt = Some(signed),
            Err(error) => warn!(%error, "a receipt can't be signed"),
        }
        let digests = self.quality.signed(&self.host);
        self.publish.send_modify(|view| view.digests = digests.into());
        self.quality.save(&self.host.db);
        self.save().await;
        self.show(None);
    }
}

async fn exited(sandbox: Option<&mut RunningSandbox>) -> Option<Exit> {
    match sandbox {
        Some(sandbox) => sandbox.exited().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<UnixMillis>) {
    match wake {
        Some(at) => tokio::time::sleep_until(Instant::now() + at.since(outside::now())).await,
        None => std::future::pending().await,
    }
}

/// The record of a lease that is on the disk before anybody hears of it.
pub(crate) async fn write_first(
    host: &Host,
    record: &LeaseRecord,
) -> Result<(), welkin_store::CommitError> {
    let mut batch = Batch::default();
    let lease = record.order.message.lease;
    if let Ok(bytes) = postcard::to_stdvec(record) {
        batch.put(LEASES, lease.as_bytes(), bytes);
    }
    batch.put(super::restore::META, super::restore::FENCING, record.fencing.to_le_bytes().to_vec());
    host.db.commit(batch).await
}
