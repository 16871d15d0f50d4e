//! The checkpoint of a spot lease that is taken back: fetched to this machine while the host waits,
//! and sent along where the task is placed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use welkin_net::Connection;
use welkin_proto::lease::{Launch, ToHost};
use welkin_types::LeaseId;

use super::{Buyer, Keeper, KeptLease, LeaseEvent, files, streams};

/// The least room that a checkpoint is given, in bytes.
const BYTES_MIN: u64 = 1 << 20;

/// What is known of a task's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCheckpoint {
    /// The file or folder in the sandbox.
    pub path: String,
    /// The most that it can have, in bytes: the lease's scratch space.
    pub bytes_max: u64,
    /// Where the last one is on this machine.
    pub here: Option<PathBuf>,
}

impl KeptCheckpoint {
    /// The checkpoint that a launch asks for, if it names one to fetch.
    pub(super) fn of(launch: &Launch) -> Option<Self> {
        let path = &launch.checkpoint.as_ref()?.path;
        let bytes_max = launch.disk_bytes.max(BYTES_MIN);
        (!path.is_empty()).then(|| Self { path: path.clone(), bytes_max, here: None })
    }
}

impl KeptLease {
    /// The files to send where this lease's task is placed again: its own, and its checkpoint.
    pub fn files(&self, own: &[(PathBuf, String, bool)]) -> Vec<(PathBuf, String, bool)> {
        let checkpoint = self.checkpoint.iter();
        let fetched =
            checkpoint.filter_map(|kept| Some((kept.here.clone()?, kept.path.clone(), true)));
        own.iter().cloned().chain(fetched).collect()
    }
}

/// A checkpoint on its way; nothing comes of it once this is dropped.
pub(super) type Fetching = oneshot::Receiver<Result<PathBuf, String>>;

/// Waits for a checkpoint, for ever where none is on its way. Safe to cancel.
pub(super) async fn fetched(fetching: &mut Option<Fetching>) -> Result<PathBuf, String> {
    match fetching {
        Some(result) => {
            let result = result.await.unwrap_or_else(|_| Err("the program ends".to_owned()));
            *fetching = None;
            result
        }
        None => std::future::pending().await,
    }
}

impl Keeper {
    /// The host waits so long for the checkpoint to be fetched.
    pub(super) fn begin_fetch(&mut self, within: Duration) {
        let (Some(kept), Some(connection)) = (&self.kept().checkpoint, self.connection()) else {
            return;
        };
        let lease = self.kept().lease;
        let (path, bytes_max) = (kept.path.clone(), kept.bytes_max);
        let buyer: Arc<Buyer> = self.shared_buyer();
        let to = buyer.home().checkpoint_dir(lease);
        let (done, result) = oneshot::channel();
        buyer.shutdown.spawn_until_asked("checkpoint", async move {
            let fetch = fetch(&connection, lease, &path, bytes_max, &to);
            let fetched = match tokio::time::timeout(within, fetch).await {
                Ok(fetched) => fetched,
                Err(_) => Err(format!("not all of it came within {} s", within.as_secs())),
            };
            // A keeper that is gone does not need it.
            let _ = done.send(fetched);
        });
        self.fetching = Some(result);
    }

    /// Notes what became of it, and lets the host go on.
    pub(super) async fn end_fetch(&mut self, fetched: Result<PathBuf, String>) -> LeaseEvent {
        if let (Ok(here), Some(kept)) = (&fetched, &mut self.kept.checkpoint) {
            kept.here = Some(here.clone());
            self.save();
        }
        self.send(ToHost::Fetched(self.kept().lease)).await;
        LeaseEvent::Checkpoint(fetched)
    }
}

async fn fetch(
    connection: &Connection,
    lease: LeaseId,
    path: &str,
    bytes_max: u64,
    to: &Path,
) -> Result<PathBuf, String> {
    let text = |error: &dyn std::error::Error| crate::chain(error);
    let stream = files::scratch().map_err(|error| text(&error))?;
    let writer = stream.try_clone().map_err(|error| text(&error))?;
    let mut writer = tokio::fs::File::from_std(writer);
    streams::get(connection, lease, path, bytes_max, &mut writer)
        .await
        .map_err(|error| text(&error))?;
    let to = to.to_owned();
    // What comes has the name that it has in the sandbox.
    let here = Path::new(path).file_name().map_or_else(|| to.clone(), |name| to.join(name));
    let unpacked = tokio::task::spawn_blocking(move || {
        use std::io::Seek as _;
        let mut stream = stream;
        stream.rewind().map_err(|error| crate::chain(&error))?;
        // One of before, of the same lease, would show through.
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).map_err(|error| crate::chain(&error))?;
        match files::unpack(stream, &to) {
            Ok(0) => Err("it is empty".to_owned()),
            Ok(_) => Ok(here),
            Err(error) => Err(crate::chain(&error)),
        }
    });
    unpacked.await.map_err(|error| error.to_string())?
}
