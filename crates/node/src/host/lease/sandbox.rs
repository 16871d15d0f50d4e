//! A lease's sandbox: got ready, started, told of its end, destroyed.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;
use welkin_lease::{Input, LeaseRecord, ResourcesUsed};
use welkin_proto::{LogSummary, Wipe};
use welkin_runtime::inventory::Gpu;
use welkin_store::LogLimits;
use welkin_types::{LeaseState, Reason, UnixMillis};

use super::{Fresh, LeaseTask, log_dir};
use crate::host::input::Stdin;
use crate::host::preempt::{self, Checkpointer};
use crate::host::sandboxes::{RunningSandbox, StartSpec};
use crate::host::stdio::{self, Ours, Pumps};

/// How long outputs may take to end once every process is gone.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl LeaseTask {
    pub(super) fn prepare(
        &self,
    ) -> impl Future<Output = Result<RunningSandbox, (Reason, String)>> + Send + use<> {
        let host = Arc::clone(&self.host);
        let record = self.machine.record();
        let (launch, gpus) = (record.launch.clone(), host.gpus(&record.devices));
        async move {
            let Some(pool) = &host.pool else {
                let text = "this host can't isolate tenants".to_owned();
                return Err((Reason::SandboxFailed, text));
            };
            let Some(gpus) = gpus else {
                let text = "a GPU of this lease is no longer there".to_owned();
                return Err((Reason::SandboxFailed, text));
            };
            let gpus = gpus.iter().map(Gpu::device).collect();
            let sandbox = pool.take(&host.config, &launch, gpus).await?;
            if host.ready.used(&launch.image) {
                crate::host::announce::renew(&host);
            }
            Ok(sandbox)
        }
    }

    pub(super) fn prepared(&mut self, prepared: Result<RunningSandbox, (Reason, String)>) {
        match prepared {
            Ok(sandbox) => self.sandbox = Some(sandbox),
            Err((reason, detail)) => {
                self.lacked_sandbox = reason == Reason::SandboxFailed;
                self.input(Input::Broken(reason, detail));
            }
        }
    }

    pub(super) async fn start(&mut self) {
        match self.try_start().await {
            Ok(()) => self.input(Input::Started),
            Err((reason, detail)) => self.input(Input::Broken(reason, detail)),
        }
    }

    async fn try_start(&mut self) -> Result<(), (Reason, String)> {
        let failed = |error: &dyn std::fmt::Display| {
            (Reason::SandboxFailed, format!("the command can't be started: {error}"))
        };
        let ends = match (self.fresh.tty, &self.sandbox) {
            (Some(size), Some(sandbox)) => {
                let terminal = sandbox.terminal().await.map_err(|e| failed(&crate::chain(&e)))?;
                stdio::terminal(terminal, size)
            }
            (_, _) => stdio::pipes(self.fresh.stdin),
        };
        let (stdio, input) = ends.map_err(|error| failed(&error))?;
        let files = match self.spool.take() {
            Some(spool) => Some(spool.into_file().map_err(|error| failed(&error))?.into()),
            None => None,
        };
        let secrets = std::mem::take(&mut self.fresh.secrets);
        let gpus = self.host.gpus(&self.machine.record().devices).unwrap_or_default();
        let spec = StartSpec {
            gpus: &gpus,
            launch: &self.machine.record().launch,
            lease: self.lease,
            secrets: &secrets,
            tty: self.fresh.tty.is_some(),
            theirs: stdio.theirs,
            kept: stdio.kept,
            files,
        };
        let Some(sandbox) = &mut self.sandbox else {
            return Err(failed(&"its sandbox is gone"));
        };
        sandbox.start(spec).await.map_err(|error| failed(&error))?;
        self.pump(stdio.ours, Stdin::fresh(input));
        Ok(())
    }

    pub(super) fn pump(&mut self, ours: Ours, input: Stdin) {
        let limits =
            LogLimits { bytes_max: self.host.config.log_bytes_max, ..LogLimits::default() };
        match Pumps::start(&log_dir(&self.host, self.lease), ours, input, limits) {
            Ok(pumps) => self.pumps = Some(pumps),
            Err(error) => warn!(%error, lease = %self.lease, "the logs can't be written"),
        }
        self.show(None);
    }

    pub(super) async fn notice(&self, until: UnixMillis) {
        if let (Some(sandbox), Some(sandboxes)) = (&self.sandbox, &self.host.sandboxes) {
            preempt::write_notice(sandboxes, sandbox.id(), until).await;
        }
    }

    pub(super) fn begin_checkpoint(&mut self, until: UnixMillis) {
        let record = self.machine.record();
        let (lease, launch) = (self.lease, &record.launch);
        let Some(checkpoint) = &launch.checkpoint else { return };
        let notice = Duration::from_secs(launch.terms.notice_seconds.into());
        let begun = record.stages.last().map_or(until, |stage| stage.at);
        let outputs = self.pumps.as_ref().map(Pumps::outputs);
        let (Some(Ok(outputs)), Some(sandboxes)) = (outputs, self.host.sandboxes.clone()) else {
            warn!(%lease, "a checkpoint can't be written: the lease's outputs are gone");
            self.input(Input::Checkpointed);
            return;
        };
        let id = ("WELKIN_LEASE".to_owned(), lease.to_string());
        let job = Checkpointer {
            sandbox: record.sandbox,
            argv: checkpoint.argv.clone(),
            env: std::iter::once(id).chain(launch.env.iter().cloned()).collect(),
            cwd: launch.cwd.clone(),
            outputs,
            until,
            kill_at: begun.after(notice),
        };
        self.checkpoint.spawn(preempt::checkpoint(sandboxes, job));
    }

    pub(super) async fn destroy(&mut self) {
        self.checkpoint.abort_all();
        let (mut wipe, mut used) =
            (Wipe { complete: true, ..Wipe::default() }, ResourcesUsed::default());
        if let Some(sandbox) = self.sandbox.take() {
            (wipe, used) = sandbox.destroy().await;
        } else if self.machine.record().sandbox != [0; 16]
            && let Some(sandboxes) = &self.host.sandboxes
        {
            wipe = sandboxes.destroy_leftover(self.machine.record().sandbox).await;
        } else if self.machine.record().sandbox != [0; 16] {
            // Nobody here can tell what became of it.
            wipe = Wipe::default();
        }
        let mut logs = LogSummary::default();
        if let Some(pumps) = self.pumps.take() {
            (logs.stdout_bytes, logs.stderr_bytes) = pumps.drained(DRAIN_TIMEOUT).await;
        }
        if wipe.complete || self.machine.record().devices.is_empty() {
            let given = self.host.slots().release(self.lease);
            preempt::hand_out(&self.host, given);
        } else {
            // A process that is still there may hold them: better idle than shared.
            warn!(lease = %self.lease, "its GPUs are kept back until a restart: not all was wiped");
        }
        if let Some(reservation) = self.reservation() {
            let (state, reason) = last_of(self.machine.record());
            // What nobody can be blamed for, as a GPU that the work itself may have hung, is no failed
            // day: else a buyer could have its days for nothing.
            let is_lost = state == LeaseState::Lost && reason != Reason::DeviceFault;
            let is_hosts = is_lost || reason == Reason::HostFault || self.lacked_sandbox;
            if is_hosts || !wipe.complete {
                self.host.reservations.failed(reservation).await;
            }
        }
        self.host.changed.notify_waiters();
        self.spool = None;
        self.fresh = Fresh::default();
        self.input(Input::Wiped(wipe, logs, used));
    }
}

/// The present state and why.
fn last_of(record: &LeaseRecord) -> (LeaseState, Reason) {
    let last = record.stages.last();
    last.map_or((LeaseState::Queued, Reason::Normal), |stage| (stage.state, stage.reason))
}
