//! What a buyer and a host say to each other.
//!
//! 1. The buyer opens the control stream and sends [`ToHost::Hello`] with its account's
//!    delegation for this connection's node, then (without waiting) [`ToHost::Open`].
//! 2. The host checks signatures, funds and its own slots, writes the lease down, and answers
//!    [`FromHost::Accepted`] or [`FromHost::Refused`]; then a [`FromHost::Stage`] for each state.
//! 3. Every two seconds of running the host sends [`FromHost::Usage`]; the buyer compares it with
//!    its own clock and answers with a cumulative [`ToHost::Voucher`].
//! 4. At the end the host sends [`FromHost::Receipt`]; the buyer signs it with [`ToHost::Ack`].
//!
//! Beside it, on the same connection, streams that begin with a [`StreamHello`] carry logs,
//! standard input, further commands, files and TCP connections. Control frames are at most
//! [`crate::FRAME_BYTES_MAX`] bytes; data is framed as [`DATA_BYTES_MAX`] at most.

use std::fmt;

use serde::{Deserialize, Serialize};
use welkin_types::{LeaseId, LeaseState, OfferId, Reason, ReservationId, UnixMillis};
use zeroize::Zeroize as _;

use crate::digest::{DigestUpdate, SessionDigests};
use crate::order::{Delegation, Order, ReceiptAck, SignedByAccount, Voucher};
use crate::receipt::{Exit, Matched, Receipt, StageTime};
use crate::reservation::{ReservationView, Reserve};
use crate::signed::Signed;
use crate::terms::{Checkpoint, Terms};

/// The most data in one frame of a data stream, in bytes.
pub const DATA_BYTES_MAX: usize = 256 << 10;
/// The most pieces of a log, or of what a further command prints, on their way to a reader.
pub const FRAMES_AHEAD_MAX: u32 = 512;
/// The most arguments of a command.
pub const ARGS_MAX: usize = 4_096;
/// The most bytes in all arguments and variables of a command.
pub const COMMAND_BYTES_MAX: usize = 256 << 10;

/// From buyer to host, on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// Who this is. First, and once.
    Hello(SignedByAccount<Delegation>),
    /// A new lease.
    Open(Box<Open>),
    /// Back to a lease of mine: its stages, and vouchers go on here.
    Resume(LeaseId),
    /// A promise.
    Voucher(Box<SignedByAccount<Voucher>>),
    /// Ask the command to end; after `grace_ms` end it.
    Stop {
        /// Which lease.
        lease: LeaseId,
        /// How long it may take.
        grace_ms: u32,
    },
    /// Sends a signal to the command.
    Signal {
        /// Which lease.
        lease: LeaseId,
        /// The signal's number.
        signal: i32,
    },
    /// The buyer's terminal has a new size.
    Resize {
        /// Which lease.
        lease: LeaseId,
        /// The size.
        size: TermSize,
    },
    /// The buyer's signature under the receipt.
    Ack(Box<SignedByAccount<ReceiptAck>>),
    /// Forget the logs and the receipt of an ended lease.
    Remove(LeaseId),
    /// The buyer has the checkpoint, or does without: the command may be asked to end.
    Fetched(LeaseId),
    /// A container for a term. Answered by [`FromHost::Reservation`] or [`FromHost::Refused`], as are
    /// the two that follow, and a voucher for a reservation.
    Reserve(Box<Reserve>),
    /// How does a reservation of mine stand?
    Reservation(ReservationId),
    /// End a reservation of mine now.
    Cancel(ReservationId),
    /// What the buyer measured of a lease, at most once a minute and at its end.
    Digest(Box<DigestUpdate>),
}

/// From host to buyer, on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHost {
    /// The lease is yours.
    Accepted(Accepted),
    /// The lease is not made.
    Refused(Refusal),
    /// The lease entered a state.
    Stage {
        /// Which lease.
        lease: LeaseId,
        /// The state, why and since when (host's clock).
        stage: StageTime,
        /// A sentence where there is more to say.
        detail: Option<String>,
    },
    /// What was used so far; a voucher is due.
    Usage {
        /// Which lease.
        lease: LeaseId,
        /// Seconds in `running`, a begun one counted.
        seconds: u64,
        /// Seconds that vouchers cover.
        covered: u64,
    },
    /// The final statement, with who vouches for the host.
    Receipt {
        /// Which lease.
        lease: LeaseId,
        /// The receipt.
        receipt: Box<Signed<Receipt>>,
        /// The operator's delegation to the host.
        operator: Box<SignedByAccount<Delegation>>,
    },
    /// The lease is forgotten.
    Removed(LeaseId),
    /// The container is taken back, and the checkpoint can be fetched now; then
    /// [`ToHost::Fetched`].
    Checkpoint {
        /// Which lease.
        lease: LeaseId,
        /// After so many milliseconds the command is asked to end all the same.
        within_ms: u32,
    },
    /// How a reservation stands.
    Reservation(Box<ReservationView>),
    /// What the host measured of a lease, before its receipt.
    Digests(Box<SessionDigests>),
}

/// A new lease as the buyer asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The order, signed by the buyer's account.
    pub order: SignedByAccount<Order>,
    /// The indexer's offer, if one was given: it names the hold. The hold itself came to the host
    /// from the indexer, so the name is enough.
    pub offer: Option<OfferId>,
    /// What to run, as bytes of [`Launch`]; the order names their SHA-256.
    pub launch: Vec<u8>,
    /// Secret variables: never stored, never logged.
    pub secrets: Vec<(String, Secret)>,
    /// How standard input and output are connected.
    pub tty: Option<TermSize>,
    /// Whether the buyer will send standard input.
    pub stdin: bool,
    /// Whether the buyer will send files (a tar stream) before the start.
    pub files: bool,
    /// Whether a spot lease may be ended for this order, which then waits for it. A buyer that has
    /// other candidates asks them first.
    pub may_preempt: bool,
    /// The indexer that matched it, as its offer says: both sides sign that with the receipt.
    pub matched: Option<Matched>,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The image: `host`, a path of the host's machine, or a reference.
    pub image: String,
    /// The command and its arguments. Empty: the image's own.
    pub argv: Vec<String>,
    /// Plain variables.
    pub env: Vec<(String, String)>,
    /// The directory to start in; empty: the image's own, else `/work`.
    pub cwd: String,
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Scratch in bytes.
    pub disk_bytes: u64,
    /// Shared memory in bytes; 0: the default.
    pub shm_bytes: u64,
    /// The longest time in `running`, in seconds; 0: none.
    pub run_seconds_max: u64,
    /// The longest time until `running`, in seconds.
    pub start_seconds_max: u64,
    /// A name for people.
    pub name: String,
    /// Under which terms.
    #[serde(default)]
    pub terms: Terms,
    /// How its progress is kept.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
}

/// A secret value. Never printed; wiped on drop.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Secret {
    /// Takes a secret in.
    pub const fn new(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one place that passes it on.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// A lease that the host has written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which lease.
    pub lease: LeaseId,
    /// Rises with each lease of the host: an older claim loses.
    pub fencing: u64,
    /// When, by the host's clock.
    pub at: UnixMillis,
}

/// Why a host does not make a lease, and what it has free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which lease.
    pub lease: LeaseId,
    /// Why.
    pub code: RefusalCode,
    /// A sentence: what, why, what to do.
    pub detail: String,
}

/// The kinds of refusal; the buyer decides by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusalCode {
    /// No slot is free: try the next candidate.
    Busy,
    /// The host takes no new leases: try the next candidate.
    Draining,
    /// The order, a signature or a bound is wrong: don't try again.
    Invalid,
    /// The buyer's account can't cover it.
    Funds,
    /// The host can't isolate tenants: try another.
    Isolation,
    /// Not this account's lease, or none of that id.
    Unknown,
    /// Something failed on the host: try another.
    Internal,
    /// Only slots of spot leases are left: try the next candidate, and this one again with
    /// [`Open::may_preempt`] where there is none.
    OnlySpot,
}

impl RefusalCode {
    /// Whether another host may well say yes.
    pub const fn try_next(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::Draining | Self::Isolation | Self::Internal | Self::OnlySpot
        )
    }
}

/// The first frame of a data stream: what it carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamHello {
    /// What a lease printed. Answered by [`LogFrame`]s; [`LogSeen`]s follow.
    Logs {
        /// Which lease.
        lease: LeaseId,
        /// Which of its outputs.
        output: Output,
        /// From where.
        from: LogFrom,
        /// Whether to go on until the lease has ended.
        follow: bool,
    },
    /// Standard input of a lease. [`DataFrame`]s follow; answered by [`InputState`]s.
    Stdin(LeaseId),
    /// One more command in a running lease. [`ExecIn`] and [`ExecOut`] follow.
    Exec {
        /// Which lease.
        lease: LeaseId,
        /// The command.
        argv: Vec<String>,
        /// Further variables.
        env: Vec<(String, String)>,
        /// The directory; empty: `/work`.
        cwd: String,
        /// With a terminal of this size.
        tty: Option<TermSize>,
    },
    /// Files of a running lease. Answered by [`DataFrame`]s of a tar stream.
    Get {
        /// Which lease.
        lease: LeaseId,
        /// What to fetch.
        path: String,
    },
    /// Files for a lease. [`DataFrame`]s of a tar stream follow; answered by an end.
    Put {
        /// Which lease.
        lease: LeaseId,
        /// The directory to unpack in.
        path: String,
    },
    /// The files of a lease that is being opened, as for `Put`.
    Files(LeaseId),
    /// A TCP connection to a port inside. Answered by [`DataFrame`]s both ways.
    Forward {
        /// Which lease.
        lease: LeaseId,
        /// The port.
        port: u16,
    },
    /// The state of one lease of mine, or of all. Answered by [`LeaseInfo`]s.
    Info(Option<LeaseId>),
}

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where to begin reading a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrom {
    /// At its beginning.
    Start,
    /// At this byte.
    Offset(u64),
    /// At the last so many lines.
    Tail(u32),
    /// At what was printed since then.
    Since(UnixMillis),
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFrame {
    /// So many bytes follow on the stream, as they are: a frame around them would be copied.
    Data {
        /// Offset of the first byte since the lease began.
        offset: u64,
        /// When they were printed, at the latest.
        at: UnixMillis,
        /// How many, at most [`DATA_BYTES_MAX`].
        len: u32,
    },
    /// Bytes that were not kept.
    Gap {
        /// The first byte that is missing.
        from: u64,
        /// The first byte that is there again.
        to: u64,
    },
    /// Nothing more will come.
    End {
        /// Bytes printed in all.
        total: u64,
    },
    /// The log can't be read.
    Failed(String),
}

/// From the reader of a log: so many further [`LogFrame::Data`] were taken. The host sends at most
/// [`FRAMES_AHEAD_MAX`] that were not. A reader that pauses has small ones in store then, not a
/// stream full of them, which transports give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSeen {
    /// How many, since the last time.
    pub frames: u32,
}

/// A piece of a stream of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataFrame {
    /// Bytes.
    Data(#[serde(with = "crate::hexed")] Vec<u8>),
    /// The end, all well.
    End,
    /// The end, and why it is not well.
    Failed(String),
}

/// From host to buyer on a stream of standard input: first how far it is, then what it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputState {
    /// The command was given so many bytes in all, over all streams.
    Taken(u64),
    /// The host was restarted and does not know; it counts from here.
    Unknown,
    /// The command's input is closed, as it or the buyer wished.
    Done,
    /// No input is taken, and why.
    Closed(String),
}

/// From buyer to a further command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecIn {
    /// Standard input.
    Data(#[serde(with = "crate::hexed")] Vec<u8>),
    /// The end of standard input.
    Eof,
    /// A new terminal size.
    Resize(TermSize),
    /// So many further [`ExecOut::Data`] were taken, as with [`LogSeen`].
    Seen(u32),
}

/// From a further command to the buyer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecOut {
    /// Standard output or error.
    Data(Output, #[serde(with = "crate::hexed")] Vec<u8>),
    /// It ended.
    Exit(Exit),
    /// It could not be run.
    Failed(String),
}

/// How a lease stands, for `ps` and `show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Which lease.
    pub lease: LeaseId,
    /// Its name for people.
    pub name: String,
    /// Its states so far.
    pub stages: Vec<StageTime>,
    /// Seconds billed so far.
    pub seconds: u64,
    /// Seconds covered by vouchers.
    pub covered: u64,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Memory in use, in bytes.
    pub memory_bytes: u64,
}

impl LeaseInfo {
    /// The present state and why.
    pub fn state(&self) -> (LeaseState, Reason) {
        self.stages
            .last()
            .map_or((LeaseState::Queued, Reason::Normal), |stage| (stage.state, stage.reason))
    }
}
