//! The words of this crate: what a sandbox is made from, runs with, and leaves behind.
//!
//! These types cross the socket between the host process and the helper as postcard, so they hold
//! plain data only. Paths and strings in them are checked again by the helper.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Names one sandbox: 16 random bytes, 32 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId([u8; 16]);

/// Names one extra process of a sandbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecId([u8; 16]);

macro_rules! id_impls {
    ($name:ident) => {
        impl $name {
            /// Wraps sixteen bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Draws a random id.
            ///
            /// # Errors
            ///
            /// When the kernel gives no randomness.
            pub fn random() -> std::io::Result<Self> {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
                Ok(Self(bytes))
            }

            /// Lends the bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = hex::FromHexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

id_impls!(SandboxId);
id_impls!(ExecId);

/// How strongly a host keeps a job apart from itself, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Nothing can be promised.
    None,
    /// A confined process without resource limits.
    Process,
    /// Namespaces, own user ids, system call filter and limits, proven by the battery.
    Container,
    /// A second kernel in user space.
    Sandbox,
    /// A virtual machine.
    Vm,
    /// A virtual machine that the host cannot read.
    Confidential,
}

/// Where the root file system of a sandbox comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// The host's own `/usr`, read-only, with a made-up `/etc`.
    HostDirs,
    /// A directory, read-only.
    Rootfs(PathBuf),
    /// A directory in the OCI image layout.
    OciLayout(PathBuf),
    /// A tar file as written by `docker save`.
    DockerTar(PathBuf),
}

/// What a sandbox may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processor time in thousandths of a core.
    pub cpu_milli: u32,
    /// Memory without scratch, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Size of the scratch space in bytes. Scratch lives in memory and is counted on top of
    /// `memory_bytes`.
    pub scratch_bytes: u64,
    /// Open files per process; lowered to what the helper may grant.
    pub nofile: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_milli: 1000,
            memory_bytes: 512 << 20,
            pids: 256,
            scratch_bytes: 256 << 20,
            nofile: 4096,
        }
    }
}

/// The network of a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Only the loopback interface.
    #[default]
    None,
}

/// A graphics processor handed to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuDevice {
    /// Device nodes under `/dev`; other than known GPU nodes are refused.
    pub nodes: Vec<PathBuf>,
}

/// Everything that must be known before the command is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The name to use; drawn at random when absent.
    pub id: Option<SandboxId>,
    /// The root file system.
    pub image: Image,
    /// The limits at first; `start` may change them.
    pub limits: Limits,
    /// The network.
    pub network: Network,
    /// The graphics processors.
    pub gpus: Vec<GpuDevice>,
    /// The host name seen inside: letters, digits and `-`, at most 63.
    pub hostname: String,
}

impl SandboxSpec {
    /// Describes a sandbox without GPUs from `image` within `limits`.
    #[must_use]
    pub fn new(image: Image, limits: Limits) -> Self {
        Self {
            id: None,
            image,
            limits,
            network: Network::None,
            gpus: Vec::new(),
            hostname: "sandbox".to_owned(),
        }
    }
}

/// What an image says about how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// `NAME=value` pairs.
    pub env: Vec<String>,
    /// The fixed first words of the command.
    pub entrypoint: Vec<String>,
    /// The default arguments.
    pub cmd: Vec<String>,
    /// The directory to start in; empty for none.
    pub working_dir: String,
    /// Digest of the image, `sha256:…`; empty for directories.
    pub digest: String,
}

/// A created sandbox that waits for its command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The sandbox.
    pub id: SandboxId,
    /// What its image says.
    pub image: ImageConfig,
    /// Whether the image shows its own user ids inside (an id-mapped mount).
    pub idmapped: bool,
}

/// A program to run inside a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program and its arguments; the program is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment as `NAME=value`; nothing is inherited.
    pub env: Vec<String>,
    /// The directory to start in; `/work` when empty.
    pub cwd: String,
    /// Whether standard input is a terminal that the program shall control.
    pub tty: bool,
}

impl Command {
    /// Builds a command from words, with a plain `PATH` and `HOME`.
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec![
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
                "HOME=/work".to_owned(),
            ],
            cwd: String::new(),
            tty: false,
        }
    }

    /// Adds one variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, when it ended by itself.
    pub code: Option<i32>,
    /// The signal that killed it, otherwise.
    pub signal: Option<i32>,
    /// Whether the memory limit killed something in the sandbox and the program failed.
    pub oom: bool,
}

impl Exit {
    /// Whether the program ended by itself with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// The code a shell would show: the exit code, or 128 plus the signal.
    #[must_use]
    pub fn shell_code(&self) -> i32 {
        self.code.or(self.signal.map(|signal| 128 + signal)).unwrap_or(255)
    }
}

/// What a sandbox has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time in microseconds.
    pub cpu_usec: u64,
    /// Time for which the processor limit held it back, in microseconds.
    pub throttled_usec: u64,
    /// Time in which something in it waited for a processor, in microseconds (PSI `cpu`, `some`).
    pub waited_usec: u64,
    /// Memory in use, scratch included.
    pub memory_bytes: u64,
    /// The most memory ever in use.
    pub memory_peak_bytes: u64,
    /// Processes and threads alive.
    pub pids: u64,
    /// Bytes in use in scratch.
    pub scratch_used_bytes: u64,
    /// Processes killed by the memory limit.
    pub oom_kills: u64,
}

/// What holds the scratch space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScratchKind {
    /// Memory, gone at unmount.
    Tmpfs,
    /// An encrypted file system whose key lives in memory only.
    Fscrypt,
}

/// What was done to forget a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WipeRecord {
    /// Processes found alive and killed.
    pub processes_killed: u32,
    /// What held the scratch space.
    pub scratch_kind: ScratchKind,
    /// Bytes in scratch just before the wipe.
    pub scratch_bytes: u64,
    /// Whether scratch and root are no longer mounted.
    pub unmounted: bool,
    /// Whether the cgroup is gone.
    pub cgroup_removed: bool,
    /// Whether the key is gone, for encrypted scratch.
    pub key_destroyed: Option<bool>,
    /// Whether all of the above was verified.
    pub wiped: bool,
    /// How long it took.
    pub elapsed: Duration,
}

impl WipeRecord {
    /// The record of a sandbox of which nothing is left.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            processes_killed: 0,
            scratch_kind: ScratchKind::Tmpfs,
            scratch_bytes: 0,
            unmounted: true,
            cgroup_removed: true,
            key_destroyed: None,
            wiped: true,
            elapsed: Duration::ZERO,
        }
    }
}

/// Where a sandbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// It waits for its command.
    Created,
    /// Its command runs.
    Running,
    /// Its command ended; files can still be read unless the whole sandbox was killed.
    Exited(Exit),
}

/// Something that happened without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// The command of a sandbox ended. May be repeated after a reconnect.
    Exited {
        /// The sandbox.
        id: SandboxId,
        /// How it ended.
        exit: Exit,
    },
    /// An extra process ended. May be repeated after a reconnect.
    ExecExited {
        /// The sandbox.
        id: SandboxId,
        /// The process.
        exec: ExecId,
        /// How it ended.
        exit: Exit,
    },
}

/// One forbidden operation, tried from inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was tried.
    pub name: String,
    /// Whether the kernel refused.
    pub denied: bool,
    /// The error number of the refusal; 0 when allowed.
    pub errno: i32,
}

/// Which control group hierarchy the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// No usable hierarchy.
    None,
    /// One tree per controller.
    V1,
    /// The controllers on v1, and a v2 tree beside.
    Hybrid,
    /// One tree.
    V2,
}

/// Which limits were seen to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitSupport {
    /// Processor time.
    pub cpu: bool,
    /// Memory.
    pub memory: bool,
    /// Processes.
    pub pids: bool,
    /// Scratch size.
    pub scratch: bool,
    /// Pausing.
    pub pause: bool,
}

/// Why a tier is not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// For machines, such as `cgroup_memory_missing`.
    pub code: String,
    /// For people.
    pub text: String,
    /// What the provider can do about it.
    pub remedy: String,
}

/// What this host can promise, as tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The strongest tier reached.
    pub tier: Tier,
    /// What the battery found.
    pub findings: Vec<Finding>,
    /// The control group hierarchy.
    pub cgroup: CgroupVersion,
    /// The limits that hold.
    pub limits: LimitSupport,
    /// Why no higher tier is reached; empty when [`Tier::Container`] or better is.
    pub reasons: Vec<Reason>,
}

impl Capabilities {
    /// The forbidden operations that the kernel allowed.
    pub fn escapes(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.denied)
    }
}
