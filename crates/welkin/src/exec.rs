//! `welkin exec`: one more command in a running lease, with this process's input and output.

use std::io::{self, Read as _, Write as _};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use welkin_node::buyer::{Buyer, BuyerError, ExecInput, ExecOutput, KeptLease};
use welkin_proto::Exit;
use welkin_proto::lease::{ExecIn, ExecOut, Output};

use crate::client::{self, Client};
use crate::terminal::{self, RawMode};
use crate::{Context, Quit, Usage, cli, out};

/// Bytes read from standard input at once.
const INPUT_BYTES: usize = 32 << 10;
/// Pieces of input that wait to be sent; then reading waits.
const INPUT_MAX: usize = 8;

/// Runs one more command in a running lease.
pub(crate) async fn exec(context: &Context, args: cli::Exec) -> anyhow::Result<()> {
    let env = env(&args)?;
    if args.tty && terminal::size().is_none() {
        return Err(Usage::new("standard input is no terminal", "leave `-t` out").into());
    }
    let kept = client::find(&client::home(context), &args.lease)?;
    let client = Client::open(context).await?;
    let exit = run(&client.buyer, &kept, args, env).await;
    client.close().await;
    let Some(exit) = exit? else { return Ok(()) };
    if exit.oom {
        out::note("ended for using more memory than the lease has");
    } else if exit.signal == Some(rustix::process::Signal::KILL.as_raw()) {
        out::note(
            "killed by signal 9 (so ends all that still runs when a lease's own command has ended)",
        );
    }
    match exit.shell_code() {
        0 => Ok(()),
        code => Err(Quit(code).into()),
    }
}

/// The variables of the command.
fn env(args: &cli::Exec) -> anyhow::Result<Vec<(String, String)>> {
    let mut env = Vec::new();
    if args.tty {
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned());
        env.push(("TERM".to_owned(), term));
    }
    for text in &args.env {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                env.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                let problem = format!("`{text}` is no variable");
                return Err(Usage::new(problem, "write it like NAME=VALUE").into());
            }
        }
    }
    Ok(env)
}

/// Carries input and output until the command has ended; `None` if nobody reads any more.
async fn run(
    buyer: &Buyer,
    kept: &KeptLease,
    args: cli::Exec,
    env: Vec<(String, String)>,
) -> anyhow::Result<Option<Exit>> {
    let session = buyer.connect(&kept.host).await?;
    let size = args.tty.then(terminal::size).flatten();
    let command = session.exec(kept.lease, args.command, env, size).await?;
    let (input, output) = command.split();
    let (seen, taken) = mpsc::channel(1);
    // Restored when this function ends, whichever way.
    let _raw = if args.tty {
        Some(RawMode::enter().context("failed to take over the terminal")?)
    } else {
        None
    };
    let exit = tokio::select! {
        exit = print(output, seen) => exit,
        never = feed(input, args.tty, taken) => match never? {},
    };
    session.close();
    exit
}

/// Prints what comes, until the command has ended.
async fn print(mut output: ExecOutput, seen: mpsc::Sender<u32>) -> anyhow::Result<Option<Exit>> {
    loop {
        if let Some(frames) = output.seen() {
            // Whoever sends it ends no sooner than this.
            let _ = seen.send(frames).await;
        }
        let written = match output.next().await? {
            ExecOut::Data(Output::Stdout, bytes) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&bytes).and_then(|()| stdout.flush())
            }
            ExecOut::Data(Output::Stderr, bytes) => io::stderr().lock().write_all(&bytes),
            ExecOut::Exit(exit) => return Ok(Some(exit)),
            ExecOut::Failed(why) => {
                return Err(anyhow::Error::new(BuyerError::Said(why)).context("failed to run it"));
            }
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            other => other.context("failed to print")?,
        }
    }
}

/// Sends input, its end, and new sizes of the terminal. Never ends by itself: the command does.
async fn feed(
    mut input: ExecInput,
    is_tty: bool,
    mut taken: mpsc::Receiver<u32>,
) -> anyhow::Result<std::convert::Infallible> {
    let mut stdin = Some(read_stdin());
    let mut resized =
        signal(SignalKind::window_change()).context("failed to watch the terminal")?;
    loop {
        let message = tokio::select! {
            piece = next(&mut stdin) => piece.map_or(ExecIn::Eof, ExecIn::Data),
            Some(frames) = taken.recv() => ExecIn::Seen(frames),
            changed = resized.recv(), if is_tty => match (changed, terminal::size()) {
                (Some(()), Some(size)) => ExecIn::Resize(size),
                _ => continue,
            },
        };
        if matches!(message, ExecIn::Eof) {
            stdin = None;
        }
        if input.send(message).await.is_err() {
            // The command has ended, or the host is gone: its output says which.
            std::future::pending::<()>().await;
        }
    }
}

async fn next(stdin: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match stdin {
        Some(stdin) => stdin.recv().await,
        None => std::future::pending().await,
    }
}

/// Reads standard input on a thread of its own: a runtime would wait for that thread at its end,
/// and so for a key that nobody presses.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(INPUT_MAX);
    std::thread::spawn(move || {
        let mut stdin = io::stdin();
        let mut buffer = vec![0; INPUT_BYTES];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => {
                    if send.blocking_send(buffer[..len].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => return,
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(env: &[&str]) -> cli::Exec {
        cli::Exec {
            lease: String::new(),
            tty: false,
            env: env.iter().map(ToString::to_string).collect(),
            command: vec!["true".to_owned()],
        }
    }

    #[test]
    fn variables_have_a_name_and_a_value() {
        let pairs = env(&args(&["A=1", "B=x=y", "C="])).unwrap();
        let texts: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(texts, ["A:1", "B:x=y", "C:"]);
        assert!(env(&args(&["A"])).unwrap_err().is::<Usage>());
        assert!(env(&args(&["=1"])).unwrap_err().is::<Usage>());
    }
}
