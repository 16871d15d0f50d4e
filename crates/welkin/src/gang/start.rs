//! The start of a task's nodes: what each is told, and the files that let its command begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use welkin_node::buyer::{Ask, Keeper, pack};
use welkin_types::{GangId, LeaseState};

use crate::run::CANCELLED;
use crate::{Quit, roles};

/// The longest piece that is read at once.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// What the node with this rank is asked as. Variables of the task win over those of its rank.
pub(super) fn ask_of(ask: &Ask, (gang, rank, nodes): (GangId, u16, u16)) -> Ask {
    let mut ask = ask.clone();
    let own = std::mem::take(&mut ask.launch.env);
    ask.launch.env = variables(gang, rank, nodes).into_iter().chain(own).collect();
    ask
}

/// What a command learns of its place: in our names, in torch's, and in those of MPI's launchers.
fn variables(gang: GangId, rank: u16, nodes: u16) -> Vec<(String, String)> {
    let (gang, rank, nodes) = (gang.to_string(), rank.to_string(), nodes.to_string());
    [
        ("WELKIN_GANG", &gang),
        ("WELKIN_NODE_RANK", &rank),
        ("WELKIN_NODES", &nodes),
        ("NODE_RANK", &rank),
        ("NNODES", &nodes),
        ("RANK", &rank),
        ("WORLD_SIZE", &nodes),
        ("OMPI_COMM_WORLD_RANK", &rank),
        ("OMPI_COMM_WORLD_SIZE", &nodes),
        ("PMI_RANK", &rank),
        ("PMI_SIZE", &nodes),
    ]
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .to_vec()
}

/// The files of a task, packed once and read by all who send them.
#[derive(Clone, Debug)]
pub(super) struct Files(Arc<File>);

impl Files {
    /// Packs them; an empty archive where there are none.
    pub(super) fn pack(entries: &[(PathBuf, String, bool)]) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(pack(entries)?)))
    }

    /// Sends them to a node, whose command starts then. Where its host is lost meanwhile, so is the
    /// lease, as the keeper will say.
    pub(super) async fn send_to(&self, keeper: &mut Keeper) -> anyhow::Result<()> {
        let mut reader = Reader { file: Arc::clone(&self.0), offset: 0 };
        let sent = keeper.files(&mut reader).await;
        Ok(keeper.files_sent(sent).await?)
    }
}

/// One reader of a file that others read as well.
struct Reader {
    file: Arc<File>,
    offset: u64,
}

impl AsyncRead for Reader {
    /// Reads at once: the file was written just now.
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(PIECE_BYTES_MAX);
        let read = self.file.read_at(buffer.initialize_unfilled_to(length), self.offset)?;
        buffer.advance(read);
        self.offset += read as u64;
        Poll::Ready(Ok(()))
    }
}

/// Starts all nodes at the same time; gives them back by rank. A signal that comes meanwhile stops all.
pub(super) async fn send(members: Vec<Keeper>, files: &Files) -> anyhow::Result<Vec<Keeper>> {
    let mut sending = JoinSet::new();
    let (sent_so_far, _) = watch::channel(0);
    let (stopped, _) = watch::channel(false);
    let nodes = members.len();
    for (rank, mut keeper) in members.into_iter().enumerate() {
        let (files, so_far) = (files.clone(), sent_so_far.clone());
        let mut is_stopped = stopped.subscribe();
        sending.spawn(async move {
            let sent = tokio::select! {
                sent = files.send_to(&mut keeper) => sent,
                _ = is_stopped.wait_for(|is| *is) => Err(Quit(CANCELLED).into()),
            };
            so_far.send_modify(|count| *count += 1);
            let mut counted = so_far.subscribe();
            // Whose files are there runs already: it is paid while the others' are on their way.
            loop {
                tokio::select! {
                    biased;
                    event = keeper.next() => if event.is_none() { break },
                    _ = counted.wait_for(|count| *count == nodes) => break,
                }
            }
            let is_lost = keeper.kept().state().0 == LeaseState::Lost;
            let lost = || anyhow::anyhow!("node {rank} was lost before all nodes had started");
            let sent = sent.and_then(|()| if is_lost { Err(lost()) } else { Ok(()) });
            (rank, keeper, sent)
        });
    }
    let (mut sent, mut failed) = (Vec::new(), None);
    let signal = roles::stop_signal();
    tokio::pin!(signal);
    loop {
        tokio::select! {
            done = sending.join_next() => {
                let Some(done) = done else { break };
                let (rank, keeper, result) = done?;
                failed = failed.or(result.err());
                sent.push((rank, keeper));
            }
            _ = &mut signal, if !*stopped.borrow() => {
                stopped.send_replace(true);
            }
        }
    }
    sent.sort_by_key(|(rank, _)| *rank);
    let mut members: Vec<_> = sent.into_iter().map(|(_, keeper)| keeper).collect();
    let Some(error) = failed else { return Ok(members) };
    // None goes on without the others.
    for keeper in &mut members {
        keeper.stop(std::time::Duration::ZERO).await;
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn ranks_are_told_in_every_customary_name() {
        let gang = GangId::from_bytes([1; 16]);
        let told = variables(gang, 1, 3);
        let value = |name: &str| told.iter().find(|(known, _)| known == name).unwrap().1.clone();
        for name in ["WELKIN_NODE_RANK", "NODE_RANK", "RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"] {
            assert_eq!(value(name), "1", "{name}");
        }
        for name in ["WELKIN_NODES", "NNODES", "WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
            assert_eq!(value(name), "3", "{name}");
        }
        assert!(!told.iter().any(|(name, _)| name == "MASTER_ADDR"), "there is no way to it");
    }

    #[tokio::test]
    async fn every_reader_reads_the_whole_file() {
        let mut file = tempfile::tempfile().unwrap();
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        file.write_all(&text).unwrap();
        let file = Arc::new(file);
        for _ in 0..2 {
            let mut read = Vec::new();
            let mut reader = Reader { file: Arc::clone(&file), offset: 0 };
            reader.read_to_end(&mut read).await.unwrap();
            assert!(read == text);
        }
    }
}
