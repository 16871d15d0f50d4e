//! A spot lease ends for an order on demand: who is told, and the checkpoint in its sandbox.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};
use welkin_lease::{Devices, Preemption};
use welkin_runtime::Command as InSandbox;
use welkin_types::{LeaseId, UnixMillis};

use super::Host;
use super::registry::Command;
use super::sandboxes::Sandboxes;
use crate::outside;

/// The file in the sandbox of a spot lease that says, once its container is taken back, until when
/// it runs: seconds since 1970. The command is given its name as `WELKIN_PREEMPT_FILE`.
pub(crate) const PREEMPT_FILE: &str = "/work/.welkin/preempt";
/// How long writing it may take.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(1);

/// Ends the spot lease that was chosen for a lease that waits, unless that one has a slot already.
pub(crate) async fn begin(host: &Arc<Host>, waiter: LeaseId, preemption: Preemption) {
    let devices = {
        let mut slots = host.slots();
        let devices = slots.devices(waiter).cloned();
        if devices.is_some() {
            slots.spare(preemption);
        }
        devices
    };
    if let Some(devices) = devices {
        tell(host, waiter, Command::Placed(devices)).await;
        return;
    }
    info!(lease = %preemption.victim, order = %waiter, "a spot lease ends for an order on demand");
    host.changed.notify_waiters();
    tell(host, preemption.victim, Command::Preempt).await;
}

/// Tells leases that waited that they have a slot now.
pub(crate) fn hand_out(host: &Arc<Host>, given: Vec<(LeaseId, Devices)>) {
    if given.is_empty() {
        return;
    }
    let sender = Arc::clone(host);
    // Not by the lease's task that frees the slot: two that wait for each other would wait for ever.
    host.shutdown.spawn_until_asked("hand-out", async move {
        for (lease, devices) in given {
            tell(&sender, lease, Command::Placed(devices)).await;
        }
    });
}

async fn tell(host: &Host, lease: LeaseId, command: Command) {
    if let Some(handle) = host.registry.handle(lease) {
        // One that is over needs no word.
        let _ = handle.commands.send(command).await;
    }
}

/// Writes [`PREEMPT_FILE`] in a sandbox. A command that does not look for it is told by SIGTERM.
pub(crate) async fn write_notice(sandboxes: &Sandboxes, sandbox: [u8; 16], until: UnixMillis) {
    let written = async {
        let stream = notice(until).map_err(|error| error.to_string())?;
        let put = sandboxes.files_put(sandbox, "/", stream);
        put.await.map_err(|error| crate::chain(&error))
    };
    match tokio::time::timeout(NOTICE_TIMEOUT, written).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => warn!(error, "the file that gives notice is not written"),
        Err(_) => warn!("the file that gives notice is not written in time"),
    }
}

/// A tar stream with the file: small enough for a pipe.
fn notice(until: UnixMillis) -> std::io::Result<OwnedFd> {
    let text = format!("{}\n", until.0 / 1_000);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    builder.append_data(&mut header, PREEMPT_FILE.trim_start_matches('/'), text.as_bytes())?;
    let bytes = builder.into_inner()?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    std::fs::File::from(write).write_all(&bytes)?;
    Ok(read)
}

/// The command that writes a checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    pub(crate) sandbox: [u8; 16],
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    /// Where what it prints goes: into the lease's log.
    pub(crate) outputs: [OwnedFd; 2],
    /// It is not waited for any longer.
    pub(crate) until: UnixMillis,
    /// When the sandbox's command is killed.
    pub(crate) kill_at: UnixMillis,
}

/// Runs it to its end, or until it takes too long. A failure is said in the lease's log.
pub(crate) async fn checkpoint(sandboxes: Sandboxes, job: Checkpointer) {
    let within = job.until.since(outside::now());
    let mut complaint = std::fs::File::from(match job.outputs[1].try_clone() {
        Ok(end) => end,
        Err(error) => return warn!(%error, "a checkpoint can't be written"),
    });
    let failed = match tokio::time::timeout(within, run(&sandboxes, job)).await {
        Ok(Ok(None)) => return,
        Ok(Ok(Some(failed))) | Ok(Err(failed)) => failed,
        Err(_) => format!("did not end within {} s", within.as_secs()),
    };
    info!(failed, "a checkpoint's command failed");
    // A pipe that nobody reads must not hold this up: what does not fit is left out.
    let text = format!("welkin: the checkpoint's command {failed}\n");
    let _ = rustix::fs::fcntl_setfl(&complaint, rustix::fs::OFlags::NONBLOCK);
    let _ = complaint.write_all(text.as_bytes());
}

/// Why it failed, if it did.
async fn run(sandboxes: &Sandboxes, job: Checkpointer) -> Result<Option<String>, String> {
    let input = std::fs::File::open("/dev/null").map_err(|error| error.to_string())?;
    let mut command = InSandbox::new(job.argv);
    command.env.push(format!("WELKIN_PREEMPT_AT={}", job.kill_at.0 / 1_000));
    command.env.push(format!("WELKIN_PREEMPT_FILE={PREEMPT_FILE}"));
    command.env.push("WELKIN_CHECKPOINT_DIR=/work/ckpt".to_owned());
    command.env.extend(job.env.iter().map(|(name, value)| format!("{name}={value}")));
    command.cwd = job.cwd;
    let [out, err] = job.outputs;
    let begun = sandboxes.exec(job.sandbox, command, [input.into(), out, err]).await;
    let id = begun.map_err(|error| format!("can't be started: {}", crate::chain(&error)))?;
    let exit = sandboxes.wait_exec(id).await.map_err(|error| crate::chain(&error))?;
    Ok(match exit.shell_code() {
        0 => None,
        code => Some(format!("ended with code {code}")),
    })
}
