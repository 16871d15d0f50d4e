//! One more command in a running lease, over one stream.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc};
use welkin_net::{RecvStream, SendStream};
use welkin_proto::lease::{
    ARGS_MAX, COMMAND_BYTES_MAX, DATA_BYTES_MAX, ExecIn, ExecOut, FRAMES_AHEAD_MAX, Output,
    TermSize,
};
use welkin_runtime::{Command, Pty};

use super::sandboxes::Sandboxes;
use super::stdio;
use crate::wire::{self, WireError};

/// Messages that wait to be sent.
const OUT_MAX: usize = 16;

/// The command to run.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) sandbox: [u8; 16],
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) tty: Option<TermSize>,
}

/// Runs it and carries its ends over the stream until it has ended.
pub(crate) async fn serve(
    sandboxes: &Sandboxes,
    exec: Exec,
    mut send: SendStream,
    recv: RecvStream,
) -> Result<(), WireError> {
    if let Err(error) = run(sandboxes, exec, &mut send, recv).await {
        wire::send(&mut send, &ExecOut::Failed(error)).await?;
    }
    let _ = send.finish();
    Ok(())
}

struct Ends {
    theirs: [OwnedFd; 3],
    input: OwnedFd,
    outputs: Vec<(Output, OwnedFd)>,
    master: Option<OwnedFd>,
}

fn ends(terminal: Option<(Pty, TermSize)>) -> io::Result<Ends> {
    let (stdio, input) = match terminal {
        Some((terminal, size)) => stdio::terminal(terminal, size)?,
        None => stdio::pipes(true)?,
    };
    let input = input.ok_or_else(|| io::Error::other("no input"))?;
    let (outputs, master) = match stdio.ours {
        stdio::Ours::Pipes(out, err) => (vec![(Output::Stdout, out), (Output::Stderr, err)], None),
        stdio::Ours::Pty(pty) => {
            let master = pty.try_clone()?;
            (vec![(Output::Stdout, pty)], Some(master))
        }
    };
    Ok(Ends { theirs: stdio.theirs, input, outputs, master })
}

async fn run(
    sandboxes: &Sandboxes,
    exec: Exec,
    send: &mut SendStream,
    recv: RecvStream,
) -> Result<(), String> {
    let bytes: usize = exec.argv.iter().map(String::len).sum();
    if exec.argv.is_empty() || exec.argv.len() > ARGS_MAX || bytes > COMMAND_BYTES_MAX {
        return Err("the command is empty or too long".to_owned());
    }
    let terminal = match exec.tty {
        Some(size) => {
            let opened = sandboxes.terminal(exec.sandbox).await;
            Some((opened.map_err(|error| crate::chain(&error))?, size))
        }
        None => None,
    };
    let ends = ends(terminal).map_err(|error| error.to_string())?;
    let mut command = Command::new(exec.argv);
    command.env.extend(exec.env.iter().map(|(name, value)| format!("{name}={value}")));
    command.cwd = exec.cwd;
    command.tty = exec.tty.is_some();
    let id = sandboxes
        .exec(exec.sandbox, command, ends.theirs)
        .await
        .map_err(|error| crate::chain(&error))?;
    let (out, mut queue) = mpsc::channel(OUT_MAX);
    let mut tasks = tokio::task::JoinSet::new();
    let mut inputs = tokio::task::JoinSet::new();
    for (output, fd) in ends.outputs {
        tasks.spawn(read_output(output, fd, out.clone()));
    }
    drop(out);
    let ahead = Arc::new(Semaphore::new(FRAMES_AHEAD_MAX as usize));
    inputs.spawn(take_input(recv, ends.input, ends.master, Arc::clone(&ahead)));
    // Outputs end when the command and all that it started have closed them.
    while let Some(message) = queue.recv().await {
        // A buyer that is gone says no more what it took: then the stream ends this.
        if let Ok(permit) = ahead.acquire().await {
            permit.forget();
        }
        wire::send(send, &message).await.map_err(|error| error.to_string())?;
    }
    let exit = sandboxes.wait_exec(id).await.map_err(|error| crate::chain(&error))?;
    wire::send(send, &ExecOut::Exit(exit)).await.map_err(|error| error.to_string())
}

async fn read_output(output: Output, fd: OwnedFd, out: mpsc::Sender<ExecOut>) {
    let Ok(fd) = stdio::register(File::from(fd), Interest::READABLE) else { return };
    let mut buffer = vec![0; DATA_BYTES_MAX / 4];
    loop {
        let Ok(mut ready) = fd.readable().await else { return };
        match ready.try_io(|fd| fd.get_ref().read(&mut buffer)) {
            Ok(Ok(0)) => return,
            Ok(Ok(len)) => {
                if out.send(ExecOut::Data(output, buffer[..len].to_vec())).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
            Ok(Err(_)) => return,
            Err(_would_block) => (),
        }
    }
}

async fn take_input(
    mut recv: RecvStream,
    input: OwnedFd,
    master: Option<OwnedFd>,
    ahead: Arc<Semaphore>,
) {
    let mut input = stdio::register(File::from(input), Interest::WRITABLE).ok();
    while let Ok(Some(message)) = wire::recv(&mut recv).await {
        match message {
            ExecIn::Data(bytes) => {
                // A command may have closed its input: not an error of the buyer's.
                if let Some(end) = &input
                    && write_all(end, &bytes).await.is_err()
                {
                    input = None;
                }
            }
            ExecIn::Eof => input = None,
            ExecIn::Seen(frames) => {
                let room = (FRAMES_AHEAD_MAX as usize).saturating_sub(ahead.available_permits());
                ahead.add_permits(room.min(frames as usize));
            }
            ExecIn::Resize(size) => {
                if let Some(master) = &master {
                    let _ = stdio::resize(master, size);
                }
            }
        }
    }
    ahead.close();
}

/// Writes all bytes to a non-blocking end.
pub(crate) async fn write_all(fd: &AsyncFd<File>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match ready.try_io(|fd| fd.get_ref().write(bytes)) {
            Ok(Ok(written)) => bytes = &bytes[written..],
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => (),
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => (),
        }
    }
    Ok(())
}
