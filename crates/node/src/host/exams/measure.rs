//! Measurements of network and disk: bounded, for assigned checkers, and ended by an order.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use welkin_check::site::{BLOCK_BYTES, Chain, read_chain};
use welkin_kernels::Stop;
use welkin_net::{RecvStream, SendStream};
use welkin_proto::exam::{ExamProbe, ExamRefusal, ExamReply};
use welkin_proto::site::{DISK_STEPS_MAX, MeasureKind, MeasureWork};
use welkin_types::NodeId;

use super::serve::{Ended, say, stopped};
use crate::host::Host;
use crate::wire::{self, WireError};

/// How long a measurement may take.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(20);

/// Does what a measurement takes.
pub(super) async fn measure(
    host: &Arc<Host>,
    checker: NodeId,
    work: MeasureWork,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Ended> {
    if !work.is_bounded() {
        return Err(Ended::Refused(ExamRefusal::TooLarge));
    }
    let running = host.exams.admit(host, checker, &work).await.map_err(Ended::Refused)?;
    say(send, &ExamReply::Ready).await?;
    let doing = async {
        match work.kind {
            MeasureKind::Download => download(work, send).await,
            MeasureKind::Upload => upload(work, send, recv).await,
            MeasureKind::Disk => disk(host, work, &running.stop, send, recv).await,
        }
    };
    let done = tokio::select! {
        done = tokio::time::timeout(MEASURE_TIMEOUT, doing) => {
            done.unwrap_or(Err(Ended::Refused(ExamRefusal::TooLarge)))
        }
        () = stopped(&running.stop) => Err(Ended::Refused(ExamRefusal::Ordered)),
    };
    match done {
        // A refusal among the bytes would be read as wrong ones: the stream ends instead.
        Err(Ended::Refused(_)) if work.kind == MeasureKind::Download => {
            Err(Ended::Broke(WireError::Ended))
        }
        done => done,
    }
}

fn broke(_: impl std::error::Error) -> Ended {
    Ended::Broke(WireError::Ended)
}

async fn download(work: MeasureWork, send: &mut SendStream) -> Result<(), Ended> {
    let mut chain = Chain::new(&work.seed);
    for _ in 0..work.blocks {
        send.write_all(&chain.block()).await.map_err(broke)?;
    }
    Ok(())
}

async fn upload(
    work: MeasureWork,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Ended> {
    let mut left = bytes_of(&work);
    let mut hash = Sha256::new();
    while left > 0 {
        let chunk = recv.read_chunk(left.min(BLOCK_BYTES)).await.map_err(broke)?;
        let chunk = chunk.ok_or(Ended::Broke(WireError::Ended))?;
        left -= chunk.len().min(left);
        hash.update(&chunk);
    }
    say(send, &ExamReply::Hash(hash.finalize().into())).await?;
    Ok(())
}

async fn disk(
    host: &Arc<Host>,
    work: MeasureWork,
    stop: &Stop,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<(), Ended> {
    let path = host.dir.join(format!("disk-test-{}", work.container));
    let until = stop.clone();
    let written = aside(move || Written::new(path, &work, &until)).await?;
    say(send, &ExamReply::Hash(written.end)).await?;
    let probe: ExamProbe = wire::expect(recv, MEASURE_TIMEOUT).await?;
    if probe.steps > DISK_STEPS_MAX {
        return Err(Ended::Refused(ExamRefusal::NothingToOpen));
    }
    let until = stop.clone();
    let seen = aside(move || written.read(&probe, &until)).await?;
    say(send, &ExamReply::Hash(seen)).await?;
    Ok(())
}

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Ended> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {
            Err(Ended::Refused(ExamRefusal::Ordered))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the disk can't be measured: is the host's folder full?");
            Err(Ended::Refused(ExamRefusal::Failed))
        }
        Err(_) => Err(Ended::Refused(ExamRefusal::Failed)),
    }
}

/// What was written; the file goes with it.
struct Written {
    file: File,
    path: PathBuf,
    blocks: u32,
    end: [u8; 32],
}

impl Written {
    fn new(path: PathBuf, work: &MeasureWork, stop: &Stop) -> std::io::Result<Self> {
        let file = create(&path)?;
        // From here on it is removed whatever happens.
        let mut written = Self { file, path, blocks: work.blocks, end: [0; 32] };
        let mut chain = Chain::new(&work.seed);
        for number in 0..work.blocks {
            goes_on(stop)?;
            written.file.write_all_at(&chain.block(), place(number))?;
        }
        written.file.sync_all()?;
        // What is read later comes from the disk, as far as the system lets a program say so.
        let _ = rustix::fs::fadvise(&written.file, 0, None, rustix::fs::Advice::DontNeed);
        written.end = chain.end();
        Ok(written)
    }

    fn read(&self, probe: &ExamProbe, stop: &Stop) -> std::io::Result<[u8; 32]> {
        read_chain(&probe.nonce, self.blocks, probe.steps, |number| {
            goes_on(stop)?;
            let mut block = vec![0; BLOCK_BYTES];
            self.file.read_exact_at(&mut block, place(number))?;
            Ok(block)
        })
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a crash may have left is written over.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true).open(path)
}

fn goes_on(stop: &Stop) -> std::io::Result<()> {
    if stop.is_stopped() { Err(std::io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

fn place(number: u32) -> u64 {
    u64::from(number) * u64::try_from(BLOCK_BYTES).unwrap_or(0)
}

pub(super) fn bytes_of(work: &MeasureWork) -> usize {
    usize::try_from(work.blocks).unwrap_or(0).saturating_mul(BLOCK_BYTES)
}
