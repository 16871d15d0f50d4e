//! One connection to the helper: a task that owns the socket, and the answers awaited from it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::error::{Failure, FailureCode, RuntimeError};
use crate::sys;
use crate::types::{Event, ExecId, Exit, SandboxId};
use crate::wire::{self, ClientMessage, Packet, Reply, Request, ServerMessage, WireError};

type Answer = (Result<Reply, Failure>, Vec<OwnedFd>);

/// A handle to the task. The task ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<Event>,
    ends: Arc<Ends>,
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Call {
    request: Request,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// The ends of programs, known or awaited.
#[derive(Debug, Default)]
struct Ends {
    jobs: Mutex<BTreeMap<SandboxId, watch::Sender<Option<Exit>>>>,
    execs: Mutex<BTreeMap<ExecId, watch::Sender<Option<Exit>>>>,
}

impl Connection {
    /// Starts the task over a connected socket.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, RuntimeError> {
        let io = |source| RuntimeError::Io { doing: "watch the helper's socket", source };
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| io(errno.into()))?;
        let socket = sys::watch(socket).map_err(io)?;
        let (calls, queue) = mpsc::channel(CALLS_MAX);
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let ends = Arc::new(Ends::default());
        let driver = Driver {
            socket,
            queue,
            events: events.clone(),
            ends: Arc::clone(&ends),
            awaited: BTreeMap::new(),
            last_id: 0,
        };
        let mut task = JoinSet::new();
        task.spawn(driver.run());
        Ok(Self { calls, events, ends, _task: task })
    }

    pub(super) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call(
        &self,
        name: &'static str,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), RuntimeError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.calls.send(Call { request, fds, answer }).await;
        sent.map_err(|_| RuntimeError::Disconnected)?;
        let (result, fds) = answered.await.map_err(|_| RuntimeError::Disconnected)?;
        let reply = result.map_err(|source| RuntimeError::Failed { request: name, source })?;
        Ok((reply, fds))
    }

    pub(super) async fn wait(&self, id: SandboxId) -> Result<Exit, RuntimeError> {
        let receiver = receiver_of(&self.ends.jobs, id);
        self.wait_for(receiver).await
    }

    pub(super) async fn wait_exec(&self, exec: ExecId) -> Result<Exit, RuntimeError> {
        let receiver = receiver_of(&self.ends.execs, exec);
        let exit = self.wait_for(receiver).await;
        lock(&self.ends.execs).remove(&exec);
        exit
    }

    async fn wait_for(
        &self,
        mut receiver: watch::Receiver<Option<Exit>>,
    ) -> Result<Exit, RuntimeError> {
        tokio::select! {
            found = receiver.wait_for(Option::is_some) => {
                let exit = found.map_err(|_| RuntimeError::Disconnected)?;
                exit.ok_or(RuntimeError::Disconnected)
            }
            () = self.calls.closed() => Err(RuntimeError::Disconnected),
        }
    }

    /// Waits until the helper has closed the connection.
    pub(super) async fn closed(&self) {
        self.calls.closed().await;
    }

    /// Drops what is known of a sandbox.
    pub(super) fn forget(&self, id: SandboxId) {
        lock(&self.ends.jobs).remove(&id);
    }
}

/// The task: requests out, answers and events in.
struct Driver {
    socket: AsyncFd<OwnedFd>,
    queue: mpsc::Receiver<Call>,
    events: broadcast::Sender<Event>,
    ends: Arc<Ends>,
    awaited: BTreeMap<u64, oneshot::Sender<Answer>>,
    last_id: u64,
}

impl Driver {
    async fn run(mut self) {
        loop {
            tokio::select! {
                received = receive(&self.socket) => match received {
                    Ok((message, fds)) => self.on_message(message, fds),
                    Err(_) => return,
                },
                call = self.queue.recv() => match call {
                    Some(call) => {
                        if self.on_call(call).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                },
            }
        }
    }

    async fn on_call(&mut self, call: Call) -> Result<(), WireError> {
        let Call { request, fds, answer } = call;
        self.last_id += 1;
        let message = ClientMessage { request_id: self.last_id, request };
        let Ok(packet) = Packet::new(&message, fds) else {
            // Too long for the helper, which would say the same.
            let text = "the request is too long or has too many descriptors";
            let failure = Failure::new(FailureCode::Invalid, text);
            let _ = answer.send((Err(failure), Vec::new()));
            return Ok(());
        };
        self.awaited.insert(self.last_id, answer);
        loop {
            let mut ready = self.socket.writable().await.map_err(WireError::Io)?;
            match packet.send(ready.get_inner().as_fd()) {
                Err(WireError::WouldBlock) => ready.clear_ready(),
                other => return other,
            }
        }
    }

    fn on_message(&mut self, message: ServerMessage, fds: Vec<OwnedFd>) {
        match message {
            ServerMessage::Reply { request_id, result } => {
                // The helper refuses a connection as a whole with request 0.
                let request_id = if request_id == 0 { 1 } else { request_id };
                if let Some(answer) = self.awaited.remove(&request_id) {
                    let _ = answer.send((result, fds));
                }
            }
            ServerMessage::Event(event) => {
                match event {
                    Event::Exited { id, exit } => {
                        sender_of(&self.ends.jobs, id).send_replace(Some(exit));
                    }
                    Event::ExecExited { exec, exit, .. } => {
                        sender_of(&self.ends.execs, exec).send_replace(Some(exit));
                    }
                }
                let _ = self.events.send(event);
            }
        }
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> Result<(ServerMessage, Vec<OwnedFd>), WireError> {
    loop {
        let mut ready = socket.ready(Interest::READABLE).await.map_err(WireError::Io)?;
        match wire::recv(ready.get_inner().as_fd()) {
            Err(WireError::WouldBlock) => ready.clear_ready(),
            other => return other,
        }
    }
}

type Watched<K> = Mutex<BTreeMap<K, watch::Sender<Option<Exit>>>>;

fn sender_of<K: Ord>(map: &Watched<K>, key: K) -> watch::Sender<Option<Exit>> {
    lock(map).entry(key).or_insert_with(|| watch::Sender::new(None)).clone()
}

fn receiver_of<K: Ord>(map: &Watched<K>, key: K) -> watch::Receiver<Option<Exit>> {
    sender_of(map, key).subscribe()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests that may wait to be sent; one more waits with its caller.
const CALLS_MAX: usize = 64;

/// Events that a slow receiver may lag behind; older ones are dropped.
const EVENTS_MAX: usize = 1024;
