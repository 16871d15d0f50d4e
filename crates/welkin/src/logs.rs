//! `welkin logs`: what a lease has printed, from its host or from the copy on this machine.
//!
//! Standard output goes to standard output and standard error to standard error, byte for byte.
//! Without `-f` the two are merged by the times at which they were printed, as far as those are
//! kept: a piece of many lines has one time. With `--json` each line is an object on standard output.

mod printer;

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, timeout};
use welkin_node::buyer::{Buyer, BuyerError, Home, HostSession, KeptLease, LogEvent, LogStream};
use welkin_node::outside;
use welkin_proto::lease::{LogFrom, Output};
use welkin_types::UnixMillis;
use welkin_types::task::Span;

use self::printer::Printer;
use crate::client::{self, Client};
use crate::up::join_all;
use crate::{Context, Usage, cli, out};

/// How long the host may take to answer before the copy is read.
const HOST_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the next piece may take where nothing has to be waited for.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lost host is tried again while following.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Pause between two tries.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// What a lease prints to, in the order of all pairs here.
const OUTPUTS: [Output; 2] = [Output::Stdout, Output::Stderr];

/// The host gives no answer.
const UNREACHABLE: &str = "host unreachable";
/// The host has forgotten the lease, or never had it.
const UNKNOWN: &str = "the host does not know this lease";

/// Shows what a lease has printed.
pub(crate) async fn logs(context: &Context, args: &cli::Logs) -> anyhow::Result<()> {
    let from = from(args, outside::now())?;
    let home = client::home(context);
    let found = client::find_all(&home, &args.lease)?;
    let client = Client::open(context).await?;
    let showing = found.iter().map(|kept| one(context, &client, (&home, kept), args, from));
    let shown = if args.follow {
        // Nodes print at the same time.
        join_all(showing).await
    } else {
        let mut shown = Vec::with_capacity(found.len());
        for showing in showing {
            shown.push(showing.await);
        }
        shown
    };
    client.close().await;
    shown.into_iter().collect()
}

/// Shows what one lease has printed; of several nodes each line behind its rank.
async fn one(
    context: &Context,
    client: &Client,
    (home, kept): (&Home, &KeptLease),
    args: &cli::Logs,
    from: LogFrom,
) -> anyhow::Result<()> {
    if kept.may_be_replaced()
        && let Some(new) = home.successor(kept.lease).map_err(BuyerError::Home)?
        && !context.is_quiet
    {
        out::note(&format!("welkin: {} was placed again as {}", kept.lease, new.lease));
    }
    let rank = kept.gang.map(|member| member.rank);
    let printers = OUTPUTS.map(|output| Printer::new(output, rank, context.is_json));
    match show(&client.buyer, kept, from, args.follow, printers).await {
        // A reader that has gone away, as `head` does, has seen enough.
        Err(ShowError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(ShowError::Print(error)) => Err(error).context("failed to print"),
        Err(ShowError::Broken(why)) => {
            Err(anyhow::Error::new(BuyerError::HostLost)
                .context(format!("the log ends early: {why}")))
        }
        Ok(()) => Ok(()),
    }
}

/// Where to begin.
fn from(args: &cli::Logs, now: UnixMillis) -> anyhow::Result<LogFrom> {
    if let Some(lines) = args.tail {
        return Ok(LogFrom::Tail(lines));
    }
    let Some(text) = &args.since else { return Ok(LogFrom::Start) };
    let span: Span = text.parse().map_err(|error| {
        Usage::new(format!("--since: {error}"), "write it like `90s`, `10m` or `2h`")
    })?;
    let millis = u64::from(span.seconds()) * 1_000;
    Ok(LogFrom::Since(UnixMillis(now.0.saturating_sub(millis))))
}

/// Why no more is shown.
#[derive(Debug)]
enum ShowError {
    /// The reader can't be written to.
    Print(io::Error),
    /// The log can't be read.
    Broken(String),
}

impl From<io::Error> for ShowError {
    fn from(error: io::Error) -> Self {
        Self::Print(error)
    }
}

/// Shows the logs at the host, else those of the copy.
async fn show(
    buyer: &Buyer,
    kept: &KeptLease,
    from: LogFrom,
    is_following: bool,
    mut printers: [Printer; 2],
) -> Result<(), ShowError> {
    let mut has_printed = false;
    let shown = match open(buyer, kept).await {
        Ok(session) if is_following => {
            follow_both(buyer, kept, &session, from, &mut printers).await
        }
        Ok(session) => match streams(&session, kept, from, false).await {
            Ok(both) => merge(both.map(Some), &mut has_printed, &mut printers).await,
            Err(why) => Err(ShowError::Broken(why)),
        },
        Err(why) => Err(ShowError::Broken(why)),
    };
    let why = match shown {
        Err(ShowError::Broken(why)) if !has_printed && !is_following => why,
        Err(ShowError::Broken(why)) if why == UNREACHABLE || why == UNKNOWN => why,
        other => return other,
    };
    let copy = |output| buyer.log_copy(kept.lease, output, from);
    let copies = [copy(Output::Stdout), copy(Output::Stderr)];
    if copies.iter().all(Option::is_none) {
        return Err(ShowError::Broken(format!("{why}, and no copy was kept here")));
    }
    out::note(&format!("{why}: this is the copy kept here, it may miss the end"));
    merge(copies, &mut has_printed, &mut printers).await
}

/// A conversation with the host of a lease, if it is there and knows the lease.
async fn open(buyer: &Buyer, kept: &KeptLease) -> Result<HostSession, String> {
    let opening = async {
        let session = buyer.connect(&kept.host).await?;
        let infos = session.info(Some(kept.lease)).await?;
        Ok::<_, BuyerError>((session, infos.is_empty()))
    };
    match timeout(HOST_TIMEOUT, opening).await {
        Ok(Ok((session, false))) => Ok(session),
        Ok(Ok((_, true))) => Err(UNKNOWN.to_owned()),
        Ok(Err(error)) => {
            tracing::debug!(error = %welkin_node::chain(&error), "the host does not answer");
            Err(UNREACHABLE.to_owned())
        }
        Err(_) => Err(UNREACHABLE.to_owned()),
    }
}

async fn streams(
    session: &HostSession,
    kept: &KeptLease,
    from: LogFrom,
    is_following: bool,
) -> Result<[LogStream; 2], String> {
    let stream = async |output| {
        let stream = session.logs(kept.lease, output, from, is_following).await;
        stream.map_err(|error| welkin_node::chain(&error))
    };
    Ok([stream(Output::Stdout).await?, stream(Output::Stderr).await?])
}

/// Shows two finished logs by their times.
async fn merge(
    mut logs: [Option<LogStream>; 2],
    has_printed: &mut bool,
    printers: &mut [Printer; 2],
) -> Result<(), ShowError> {
    let [stdout, stderr] = &mut logs;
    let mut heads = [piece(stdout).await, piece(stderr).await];
    while let Some(first) = earlier(&heads) {
        let next = piece(&mut logs[first]).await;
        match std::mem::replace(&mut heads[first], next) {
            LogEvent::Data(at, bytes) => printers[first].print(at, &bytes)?,
            LogEvent::Gap(bytes) => printers[first].gap(bytes)?,
            LogEvent::End => (),
            LogEvent::Broken(why) => return Err(ShowError::Broken(why)),
        }
        *has_printed = true;
    }
    Ok(printers.iter_mut().try_for_each(Printer::finish)?)
}

/// The next piece of a log that need not be waited for.
async fn piece(log: &mut Option<LogStream>) -> LogEvent {
    let Some(stream) = log else { return LogEvent::End };
    timeout(PIECE_TIMEOUT, stream.next())
        .await
        .unwrap_or_else(|_| LogEvent::Broken("the host does not go on".to_owned()))
}

/// Which of two pieces comes first; `None` once both logs have ended.
fn earlier(heads: &[LogEvent; 2]) -> Option<usize> {
    let rank = |head: &LogEvent| match head {
        // Gaps have no time: they are told at once.
        LogEvent::Broken(_) => Some((0, UnixMillis(0))),
        LogEvent::Gap(_) => Some((1, UnixMillis(0))),
        LogEvent::Data(at, _) => Some((2, *at)),
        LogEvent::End => None,
    };
    let [stdout, stderr] = heads;
    match (rank(stdout), rank(stderr)) {
        (None, None) => None,
        (Some(stdout), Some(stderr)) if stderr < stdout => Some(1),
        (Some(_), _) => Some(0),
        (None, Some(_)) => Some(1),
    }
}

/// Shows both logs as they grow.
async fn follow_both(
    buyer: &Buyer,
    kept: &KeptLease,
    session: &HostSession,
    from: LogFrom,
    [out, err]: &mut [Printer; 2],
) -> Result<(), ShowError> {
    let [stdout, stderr] = streams(session, kept, from, true).await.map_err(ShowError::Broken)?;
    // Where a log was begun at its start, the place to go on at is known.
    let position = (from == LogFrom::Start).then_some(0);
    let follow = async |stream, output, printer| {
        Follower { buyer, kept, output, stream, position, session: None }.run(printer).await
    };
    let stdout = follow(stdout, Output::Stdout, out);
    let stderr = follow(stderr, Output::Stderr, err);
    tokio::try_join!(stdout, stderr).map(drop)
}

/// Follows one output to its end, also past a restart of its host.
struct Follower<'a> {
    buyer: &'a Buyer,
    kept: &'a KeptLease,
    output: Output,
    stream: LogStream,
    /// The byte to go on at; `None` where it can't be known.
    position: Option<u64>,
    /// A later conversation than the first.
    session: Option<HostSession>,
}

impl Follower<'_> {
    async fn run(mut self, printer: &mut Printer) -> Result<(), ShowError> {
        loop {
            let passed = match self.stream.next().await {
                LogEvent::Data(at, bytes) => {
                    printer.print(at, &bytes)?;
                    bytes.len() as u64
                }
                LogEvent::Gap(bytes) => {
                    printer.gap(bytes)?;
                    bytes
                }
                LogEvent::End => return Ok(printer.finish()?),
                LogEvent::Broken(why) => {
                    self.reopen(why).await?;
                    0
                }
            };
            self.position = self.position.map(|position| position + passed);
        }
    }

    async fn reopen(&mut self, why: String) -> Result<(), ShowError> {
        let Some(position) = self.position else { return Err(ShowError::Broken(why)) };
        let since = Instant::now();
        while since.elapsed() < RECONNECT_MAX {
            tokio::time::sleep(RECONNECT_PAUSE).await;
            let Ok(session) = open(self.buyer, self.kept).await else { continue };
            let from = LogFrom::Offset(position);
            if let Ok(stream) = session.logs(self.kept.lease, self.output, from, true).await {
                self.stream = stream;
                self.session = Some(session);
                return Ok(());
            }
        }
        Err(ShowError::Broken(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(at: u64) -> LogEvent {
        LogEvent::Data(UnixMillis(at), vec![b'x'].into())
    }

    #[test]
    fn pieces_come_by_their_times_and_stdout_first() {
        assert_eq!(earlier(&[data(2), data(1)]), Some(1));
        assert_eq!(earlier(&[data(1), data(1)]), Some(0));
        assert_eq!(earlier(&[data(1), LogEvent::Gap(7)]), Some(1));
        assert_eq!(earlier(&[LogEvent::End, data(9)]), Some(1));
        assert_eq!(earlier(&[LogEvent::End, LogEvent::End]), None);
    }

    #[test]
    fn beginnings_are_read_from_flags() {
        let args = cli::Logs { lease: String::new(), follow: false, tail: None, since: None };
        let now = UnixMillis(700_000);
        assert_eq!(from(&args, now).unwrap(), LogFrom::Start);
        let tail = cli::Logs { tail: Some(3), ..args.clone() };
        assert_eq!(from(&tail, now).unwrap(), LogFrom::Tail(3));
        let since = cli::Logs { since: Some("10m".to_owned()), ..args.clone() };
        assert_eq!(from(&since, now).unwrap(), LogFrom::Since(UnixMillis(100_000)));
        let wrong = cli::Logs { since: Some("10".to_owned()), ..args };
        assert!(from(&wrong, now).unwrap_err().is::<Usage>());
    }
}
