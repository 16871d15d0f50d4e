//! The streams beside a control stream: logs, input, commands, files, connections.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tracing::debug;
use welkin_net::{Connection, RecvStream, SendStream};
use welkin_proto::lease::{
    DATA_BYTES_MAX, DataFrame, InputState, LeaseInfo, LogFrame, LogFrom, Output, StreamHello,
};
use welkin_store::{LogPiece, LogReader, LogStart};
use welkin_types::{AccountId, LeaseId, LeaseState};

use super::Host;
use super::exec::{self, Exec};
use super::lease::log_dir;
use super::registry::{Command, LeaseHandle};
use super::spool::Spool;
use super::stdio::{self, log_name};
use crate::gate::Busy;
use crate::wire::{self, LogSender, WireError};

/// How long a stream may take to say what it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The most streams of one connection at once.
const STREAMS_MAX: usize = 128;
/// How long the files of a task may pause on their way.
const FILES_IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a log waits for its lease to start.
const START_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Takes the streams of a connection until it ends.
pub(crate) async fn accept(host: Arc<Host>, connection: Connection, buyer: AccountId, busy: Busy) {
    let mut streams = JoinSet::new();
    while let Ok((send, recv)) = connection.accept().await {
        while streams.try_join_next().is_some() {}
        if streams.len() >= STREAMS_MAX {
            connection.close(5, b"too many streams");
            return;
        }
        let (host, work) = (Arc::clone(&host), busy.begin());
        streams.spawn(async move {
            let _work = work;
            if let Err(error) = serve(&host, buyer, send, recv).await {
                debug!(%error, "a stream ended");
            }
        });
    }
}

async fn serve(
    host: &Arc<Host>,
    buyer: AccountId,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let hello: StreamHello = wire::expect(&mut recv, HELLO_TIMEOUT).await?;
    if let StreamHello::Info(lease) = hello {
        return info(host, buyer, lease, send).await;
    }
    let lease = lease_of(&hello);
    let Some(handle) = host.registry.find(lease, buyer) else {
        return refuse(&hello, send).await;
    };
    match hello {
        StreamHello::Logs { lease, output, from, follow } => {
            let sender = LogSender::new(send, recv);
            logs(host, handle, Asked { lease, output, from, follow }, sender).await
        }
        StreamHello::Stdin(_) => stdin(handle, send, recv).await,
        StreamHello::Exec { argv, env, cwd, tty, .. } => match running(&handle) {
            Some(sandbox) => {
                let Some(sandboxes) = &host.sandboxes else { return Ok(()) };
                let env = lease_env(&handle).into_iter().chain(env).collect();
                let exec = Exec { sandbox, argv, env, cwd, tty };
                exec::serve(sandboxes, exec, send, recv).await
            }
            None => {
                let text = not_running(&handle);
                wire::send(&mut send, &welkin_proto::lease::ExecOut::Failed(text)).await
            }
        },
        StreamHello::Get { path, .. } => get(host, &handle, &path, send).await,
        StreamHello::Put { path, .. } => put(host, &handle, &path, send, recv).await,
        StreamHello::Files(_) => files(host, handle, send, recv).await,
        StreamHello::Forward { port, .. } => forward(host, &handle, port, send, recv).await,
        StreamHello::Info(_) => Ok(()),
    }
}

const fn lease_of(hello: &StreamHello) -> LeaseId {
    match hello {
        StreamHello::Logs { lease, .. }
        | StreamHello::Stdin(lease)
        | StreamHello::Exec { lease, .. }
        | StreamHello::Get { lease, .. }
        | StreamHello::Put { lease, .. }
        | StreamHello::Files(lease)
        | StreamHello::Forward { lease, .. } => *lease,
        StreamHello::Info(_) => LeaseId::from_bytes([0; 16]),
    }
}

async fn refuse(hello: &StreamHello, mut send: SendStream) -> Result<(), WireError> {
    let text = "you have no such lease on this host".to_owned();
    match hello {
        StreamHello::Logs { .. } => wire::send(&mut send, &LogFrame::Failed(text)).await,
        StreamHello::Exec { .. } => {
            wire::send(&mut send, &welkin_proto::lease::ExecOut::Failed(text)).await
        }
        _ => wire::send(&mut send, &DataFrame::Failed(text)).await,
    }
}

/// The sandbox of a lease whose command runs.
fn running(handle: &LeaseHandle) -> Option<[u8; 16]> {
    let view = handle.view.borrow();
    (view.record.state() == LeaseState::Running).then_some(view.record.sandbox)
}

/// The sandbox of a lease whose command is about to end.
fn stopping(handle: &LeaseHandle) -> Option<[u8; 16]> {
    let view = handle.view.borrow();
    (view.record.state() == LeaseState::Stopping).then_some(view.record.sandbox)
}

/// The variables that the lease's own command was given, secrets left out: they are not kept.
fn lease_env(handle: &LeaseHandle) -> Vec<(String, String)> {
    let record = Arc::clone(&handle.view.borrow().record);
    let lease = ("WELKIN_LEASE".to_owned(), record.order.message.lease.to_string());
    std::iter::once(lease).chain(record.launch.env.iter().cloned()).collect()
}

fn not_running(handle: &LeaseHandle) -> String {
    format!("the lease is {}, not running", handle.view.borrow().record.state())
}

struct Asked {
    lease: LeaseId,
    output: Output,
    from: LogFrom,
    follow: bool,
}

async fn logs(
    host: &Host,
    mut handle: LeaseHandle,
    asked: Asked,
    mut sender: LogSender,
) -> Result<(), WireError> {
    let start = match asked.from {
        LogFrom::Start => LogStart::Offset(0),
        LogFrom::Offset(offset) => LogStart::Offset(offset),
        LogFrom::Tail(lines) => LogStart::Tail(lines),
        LogFrom::Since(at) => LogStart::Since(at),
    };
    if asked.follow {
        // The log begins when the command does.
        let begun =
            handle.view.wait_for(|view| view.terminal.is_some() || view.record.wipe.is_some());
        // Where it does not begin, as the host stops, nothing says that it has ended either.
        let Ok(Ok(_)) = tokio::time::timeout(START_TIMEOUT, begun).await else { return Ok(()) };
    }
    let terminal = handle.view.borrow().terminal.clone();
    let (folder, name) = (log_dir(host, asked.lease), log_name(asked.output));
    let index = usize::from(asked.output == Output::Stderr);
    let reader = match &terminal {
        Some(terminal) => LogReader::follow(&folder, name, start, terminal.logs[index].clone()),
        None if welkin_store::log_exists(&folder, name) => {
            LogReader::finished(&folder, name, start)
        }
        None => return sender.end(0).await,
    };
    let reader = match reader {
        Ok(reader) => reader,
        Err(error) => {
            return sender.frame(&LogFrame::Failed(crate::chain(&error))).await;
        }
    };
    let place = terminal
        .filter(|_| asked.follow)
        .map(|terminal| terminal.attached[index].join(reader.position()));
    send_log(reader, place, asked.follow, sender).await
}

async fn send_log(
    mut reader: LogReader,
    place: Option<stdio::Reader>,
    follow: bool,
    mut sender: LogSender,
) -> Result<(), WireError> {
    loop {
        // A new one each time: it is handed to the transport without a copy.
        let mut buffer = Vec::new();
        let piece = match reader.next(&mut buffer, DATA_BYTES_MAX) {
            Ok(piece) => piece,
            Err(error) => {
                return sender.frame(&LogFrame::Failed(crate::chain(&error))).await;
            }
        };
        match piece {
            LogPiece::Data { offset } => {
                let at = reader.time_of(offset);
                sender.data(offset, at, buffer.into()).await?;
                if let Some(place) = &place {
                    place.moved(reader.position());
                }
            }
            LogPiece::Gap { from, to } => sender.frame(&LogFrame::Gap { from, to }).await?,
            LogPiece::End { total } => return sender.end(total).await,
            LogPiece::Later if follow => reader.ready().await,
            // Without an end: who follows asks again once this host is back.
            LogPiece::Abandoned if follow => return Ok(()),
            LogPiece::Later | LogPiece::Abandoned => return sender.end(reader.position()).await,
        }
    }
}

async fn stdin(
    mut handle: LeaseHandle,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let Ok(view) = handle
        .view
        .wait_for(|view| view.terminal.is_some() || view.record.state().is_final())
        .await
        .map(|view| view.clone())
    else {
        return Ok(());
    };
    match view.terminal {
        Some(terminal) => terminal.input.serve(&mut send, &mut recv).await,
        None => wire::send(&mut send, &InputState::Done).await,
    }
}

async fn get(
    host: &Host,
    handle: &LeaseHandle,
    path: &str,
    mut send: SendStream,
) -> Result<(), WireError> {
    let sandbox = running(handle).or_else(|| stopping(handle));
    let (Some(sandbox), Some(sandboxes)) = (sandbox, &host.sandboxes) else {
        return wire::send(&mut send, &DataFrame::Failed(not_running(handle))).await;
    };
    let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC) else {
        return wire::send(&mut send, &DataFrame::Failed("no pipe".to_owned())).await;
    };
    let reading = async {
        let mut pipe = tokio::fs::File::from_std(File::from(read));
        let mut buffer = vec![0; DATA_BYTES_MAX];
        while let Ok(len @ 1..) = pipe.read(&mut buffer).await {
            wire::send(&mut send, &DataFrame::Data(buffer[..len].to_vec())).await?;
        }
        Ok::<(), WireError>(())
    };
    let (read, got) = tokio::join!(reading, sandboxes.files_get(sandbox, path, write));
    read?;
    let last = match got {
        Ok(()) => DataFrame::End,
        Err(error) => DataFrame::Failed(crate::chain(&error)),
    };
    wire::send(&mut send, &last).await?;
    let _ = send.finish();
    Ok(())
}

async fn put(
    host: &Host,
    handle: &LeaseHandle,
    path: &str,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let (Some(sandbox), Some(sandboxes)) = (running(handle), &host.sandboxes) else {
        return wire::send(&mut send, &DataFrame::Failed(not_running(handle))).await;
    };
    let Ok((read, write)) = pipe_with(PipeFlags::CLOEXEC) else {
        return wire::send(&mut send, &DataFrame::Failed("no pipe".to_owned())).await;
    };
    let writing = feed(&mut recv, write);
    let (fed, done) = tokio::join!(writing, sandboxes.files_put(sandbox, path, read));
    let last = match (done, fed) {
        (Err(error), _) => DataFrame::Failed(crate::chain(&error)),
        (Ok(()), Err(error)) => return Err(error),
        (Ok(()), Ok(())) => DataFrame::End,
    };
    wire::send(&mut send, &last).await?;
    let _ = send.finish();
    Ok(())
}

/// Data frames into a pipe. A reader that stops early ends it without an error.
async fn feed(recv: &mut RecvStream, pipe: OwnedFd) -> Result<(), WireError> {
    let mut pipe = tokio::fs::File::from_std(File::from(pipe));
    while let Some(frame) = wire::recv(recv).await? {
        let DataFrame::Data(bytes) = frame else { break };
        if pipe.write_all(&bytes).await.is_err() {
            break;
        }
    }
    let _ = pipe.flush().await;
    Ok(())
}

/// The files of a task that waits for them.
async fn files(
    host: &Host,
    handle: LeaseHandle,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let (bytes_max, is_waiting) = {
        let view = handle.view.borrow();
        let is_waiting = matches!(view.record.state(), LeaseState::Placing | LeaseState::Pulling);
        (view.record.launch.disk_bytes, is_waiting)
    };
    let Some(_permit) = host.spools.try_acquire().ok().filter(|_| is_waiting) else {
        let text = "the lease does not wait for files, or too many are on their way".to_owned();
        return wire::send(&mut send, &DataFrame::Failed(text)).await;
    };
    let spooled = spool(host, bytes_max, &mut recv).await;
    let last = match &spooled {
        Ok(_) => DataFrame::End,
        Err(text) => DataFrame::Failed(text.clone()),
    };
    let _ = handle.commands.send(Command::Files(spooled)).await;
    wire::send(&mut send, &last).await?;
    let _ = send.finish();
    Ok(())
}

async fn spool(host: &Host, bytes_max: u64, recv: &mut RecvStream) -> Result<Spool, String> {
    let text = |error: std::io::Error| format!("the files can't be kept: {error}");
    let mut spool = Spool::new(&host.dir.join("spool"), bytes_max).map_err(text)?;
    loop {
        let Ok(frame) = tokio::time::timeout(FILES_IDLE_MAX, wire::recv(recv)).await else {
            return Err("the files stopped coming".to_owned());
        };
        match frame {
            Ok(Some(DataFrame::Data(bytes))) => spool.append(&bytes).map_err(text)?,
            Ok(Some(DataFrame::End)) => return Ok(spool),
            Ok(Some(DataFrame::Failed(why))) => return Err(why),
            Ok(None) => return Err("the files end early".to_owned()),
            Err(error) => return Err(crate::chain(&error)),
        }
    }
}

async fn forward(
    host: &Host,
    handle: &LeaseHandle,
    port: u16,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), WireError> {
    let (Some(sandbox), Some(sandboxes)) = (running(handle), &host.sandboxes) else {
        return wire::send(&mut send, &DataFrame::Failed(not_running(handle))).await;
    };
    let socket = match sandboxes.dial(sandbox, port).await {
        Ok(socket) => tokio::net::TcpStream::from_std(std::net::TcpStream::from(socket)),
        Err(error) => {
            return wire::send(&mut send, &DataFrame::Failed(crate::chain(&error))).await;
        }
    };
    let Ok(mut socket) = socket else { return Ok(()) };
    wire::send(&mut send, &DataFrame::End).await?;
    // From here on the stream carries the connection's bytes as they are.
    let (mut inside_read, mut inside_write) = socket.split();
    let inward = async {
        let _ = tokio::io::copy(&mut recv, &mut inside_write).await;
        let _ = inside_write.shutdown().await;
    };
    let outward = async {
        let _ = tokio::io::copy(&mut inside_read, &mut send).await;
        let _ = send.finish();
    };
    tokio::join!(inward, outward);
    Ok(())
}

async fn info(
    host: &Host,
    buyer: AccountId,
    lease: Option<LeaseId>,
    mut send: SendStream,
) -> Result<(), WireError> {
    let handles = match lease {
        Some(lease) => host.registry.find(lease, buyer).into_iter().collect(),
        None => host.registry.of(buyer),
    };
    for handle in handles {
        let info = info_of(host, &handle).await;
        wire::send(&mut send, &info).await?;
    }
    let _ = send.finish();
    Ok(())
}

async fn info_of(host: &Host, handle: &LeaseHandle) -> LeaseInfo {
    let record = Arc::clone(&handle.view.borrow().record);
    let stats = match (&host.sandboxes, running(handle)) {
        (Some(sandboxes), Some(sandbox)) => sandboxes.stats(sandbox).await,
        _ => None,
    };
    let seconds = if record.state().is_final() {
        record.usage.seconds
    } else {
        record.seconds(crate::outside::now())
    };
    LeaseInfo {
        lease: record.order.message.lease,
        name: record.launch.name.clone(),
        stages: record.stages.clone(),
        seconds,
        covered: record.covered().0,
        exit: record.exit,
        cpu_us: stats.map_or(record.usage.cpu_us, |stats| stats.cpu_usec),
        memory_bytes: stats.map_or(record.usage.memory_peak_bytes, |stats| stats.memory_bytes),
    }
}
