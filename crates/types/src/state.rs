//! The states of a lease, why it is in one, and whether that costs money.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a state is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Billing {
    /// Seconds in this state are paid for.
    On,
    /// Seconds in this state are free.
    Off,
}

impl fmt::Display for Billing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// Waits for a free container.
    Queued,
    /// An indexer is choosing and a host is being asked.
    Placing,
    /// The host fetches the image and the files.
    Pulling,
    /// The sandbox is being started.
    Starting,
    /// The command runs.
    Running,
    /// The command is being stopped.
    Stopping,
    /// Ended: the command returned 0.
    Succeeded,
    /// Ended: the command returned something else, or could not be started.
    Failed,
    /// Ended: the buyer stopped it.
    Stopped,
    /// Ended: the host took the container back.
    Preempted,
    /// Ended: the host or its sandbox is gone.
    Lost,
    /// Ended: a time or money limit was reached.
    Expired,
}

impl LeaseState {
    /// Whether a lease in this state is paid for: only running is.
    pub const fn billing(self) -> Billing {
        match self {
            Self::Running => Billing::On,
            _ => Billing::Off,
        }
    }

    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Succeeded
                | Self::Failed
                | Self::Stopped
                | Self::Preempted
                | Self::Lost
                | Self::Expired
        )
    }

    /// The state's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Placing => "placing",
            Self::Pulling => "pulling",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Preempted => "preempted",
            Self::Lost => "lost",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whose fault something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The host's: its hardware, driver, power, cooling, operator.
    Host,
    /// The buyer's work.
    Buyer,
    /// What lies between host and buyer.
    Network,
    /// Nobody can tell: nobody pays for it.
    Unknown,
}

impl Fault {
    /// Its name, for machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Buyer => "buyer",
            Self::Network => "network",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a lease is in its state: a code for machines, a sentence for people.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason's code, for machines.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// Nothing special: the usual step.
    Normal = "normal",
    /// No container fits; see the why-not list.
    NoCapacity = "no_capacity",
    /// Every host that was asked was busy.
    HostsBusy = "hosts_busy",
    /// The command returned 0.
    ExitedZero = "exited_zero",
    /// The command returned something other than 0.
    ExitedNonZero = "exited_non_zero",
    /// The command was ended by a signal that nobody here sent.
    KilledBySignal = "killed_by_signal",
    /// The command used more memory than the lease has.
    OutOfMemory = "out_of_memory",
    /// The image could not be read.
    ImageUnusable = "image_unusable",
    /// The files of the task could not be put in place.
    FilesUnusable = "files_unusable",
    /// The sandbox could not be made.
    SandboxFailed = "sandbox_failed",
    /// The buyer asked for the stop.
    BuyerStopped = "buyer_stopped",
    /// The buyer paid no more: work that nothing covers had reached its bound.
    Uncovered = "uncovered",
    /// The buyer's account or budget is used up.
    FundsExhausted = "funds_exhausted",
    /// The task's own time limit was reached.
    RunTimeout = "run_timeout",
    /// The start took longer than the task allows.
    StartTimeout = "start_timeout",
    /// The host is being drained by its owner.
    HostDrained = "host_drained",
    /// The host can't be reached any more.
    HostUnreachable = "host_unreachable",
    /// The host restarted and the sandbox did not survive it.
    HostRestarted = "host_restarted",
    /// The sandbox disappeared on the host.
    SandboxLost = "sandbox_lost",
    /// An order on demand needed the container of a spot lease.
    Preempted = "preempted",
    /// A spot lease has to end first.
    AwaitsSpot = "awaits_spot",
    /// The reservation that it ran on is over.
    ReservationEnded = "reservation_ended",
    /// The host's hardware failed: what ran is lost, or had to leave.
    HostFault = "host_fault",
    /// A device failed and nobody can tell whether the work or the hardware was at fault.
    DeviceFault = "device_fault",
}

impl Reason {
    /// Whose fault an end for this reason is; nothing where it is nobody's, as of a stop.
    ///
    /// A host looks at its kernel's log before it gives a reason: a command that failed because the
    /// GPU fell off the bus ends for [`Self::HostFault`].
    pub const fn fault(self) -> Option<Fault> {
        match self {
            Self::HostFault
            | Self::SandboxFailed
            | Self::SandboxLost
            | Self::HostRestarted
            | Self::HostDrained => Some(Fault::Host),
            Self::ExitedNonZero
            | Self::KilledBySignal
            | Self::OutOfMemory
            | Self::ImageUnusable
            | Self::FilesUnusable
            | Self::Uncovered => Some(Fault::Buyer),
            Self::HostUnreachable => Some(Fault::Network),
            Self::DeviceFault | Self::StartTimeout => Some(Fault::Unknown),
            Self::Normal
            | Self::NoCapacity
            | Self::HostsBusy
            | Self::ExitedZero
            | Self::BuyerStopped
            | Self::FundsExhausted
            | Self::RunTimeout
            | Self::Preempted
            | Self::AwaitsSpot
            | Self::ReservationEnded => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_bills_and_codes_match_serde() {
        assert_eq!(LeaseState::Running.billing(), Billing::On);
        assert_eq!(LeaseState::Starting.billing(), Billing::Off);
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.code());
            let fault = reason.fault();
            assert_eq!(serde_json::to_value(fault).unwrap().as_str(), fault.map(Fault::as_str));
        }
        assert_eq!(Reason::HostFault.fault(), Some(Fault::Host));
        assert_eq!(Reason::BuyerStopped.fault(), None);
    }
}
