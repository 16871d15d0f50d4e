//! Who checks what, when, without the checked knowing: private sortition, and a public fall-back.
//!
//! What nodes do is in [`Committees`]:
//!
//! 1. A checker's VRF key is registered before the seed of the epoch is known, so that nobody tries
//!    keys until one is assigned what it likes.
//! 2. From the seed, the minute and its number its holder makes one [`Proof`] a minute ([`VrfKey`]);
//!    nobody else can, and there is only one output, the [`Lot`]: which containers it visits in that
//!    minute, and at which second. A host learns of it when it is challenged, everybody else when
//!    the proof is shown with the report.
//! 3. Whoever is shown a proof verifies it by itself, at once.
//! 4. Where fewer than a committee reported on a container in a period, licences stand in that are
//!    publicly named by rendezvous hashing among neighbours; a silent one is replaced by the next.
//!
//! [`Plan`] is the same by the hour and without a network, for a whole day with one proof: the model
//! by which parameters are simulated. Nobody checks containers of the account that owns the licence
//! in it.

mod committees;
mod fallback;
mod lot;
mod vrf;

use welkin_types::AccountId;

use crate::challenge::chacha;
pub use committees::{Committees, Map};
pub use fallback::Weights;
pub use lot::Lot;
pub use vrf::{PROOF_BYTES, Proof, Ticket, VrfKey, VrfPublic};

/// Blocks of ChaCha with 8 rounds expand an output; 8 tasks from each.
const DOUBLE_ROUNDS: u32 = 4;
const MARK: u32 = 0x7461_736b;
/// The most tasks of a licence in a period.
pub const TASKS_MAX: u32 = 1 << 16;

/// A licence that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Licence {
    /// Its number.
    pub number: u32,
    /// Who owns it.
    pub owner: AccountId,
    /// Its holder's VRF key.
    pub key: VrfPublic,
    /// In which epoch the key was registered.
    pub registered: u64,
}

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// In which period of the epoch.
    pub period: u8,
    /// At which second of the period.
    pub second: u16,
    /// Which container, by its place in the epoch's sorted list.
    pub container: u32,
}

/// What an epoch's checks are planned by. Public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The epoch's seed.
    pub seed: [u8; 32],
    /// The epoch.
    pub epoch: u64,
    /// How many containers there are.
    pub containers: u32,
    /// How many licences there are.
    pub licences: u32,
    /// How often a container is checked in a period, on average.
    pub checks: u32,
    /// Periods of the epoch.
    pub periods: u8,
    /// Seconds of a period.
    pub period_seconds: u16,
}

impl Plan {
    /// What a licence proves about.
    pub const fn ticket(&self, licence: u32) -> Ticket {
        Ticket { seed: self.seed, epoch: self.epoch, licence }
    }

    /// The tasks of an output, in order of time.
    pub fn tasks(&self, output: &[u8; 32]) -> Vec<Task> {
        let mut tasks = Vec::new();
        self.for_each_task(output, |task| tasks.push(task));
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }

    /// Calls `take` with every task, period by period, in no order within one.
    pub fn for_each_task(&self, output: &[u8; 32], mut take: impl FnMut(Task)) {
        let key = chacha::key(output);
        for period in 0..self.periods {
            let block =
                |number| chacha::block(&key, [number, 0, MARK, u32::from(period)], DOUBLE_ROUNDS);
            let first = block(0);
            let count = self.count(first[0]);
            let mut number = 0;
            let mut left = count;
            while left > 0 {
                number += 1;
                for words in block(number).chunks_exact(2).take(to_usize(left)) {
                    let container = scaled(words[0], self.containers);
                    let second = scaled(words[1], u32::from(self.period_seconds));
                    let second = u16::try_from(second).unwrap_or(0);
                    take(Task { period, second, container });
                }
                left = left.saturating_sub(8);
            }
        }
    }

    /// How many tasks a licence has in a period: the mean rounded up or down by chance.
    fn count(&self, word: u32) -> u32 {
        if self.licences == 0 || self.containers == 0 {
            return 0;
        }
        let wanted = u64::from(self.containers) * u64::from(self.checks);
        let licences = u64::from(self.licences);
        let up = u64::from(word) * licences < (wanted % licences) << 32;
        let count = wanted / licences + u64::from(up);
        u32::try_from(count).unwrap_or(TASKS_MAX).min(TASKS_MAX)
    }

    /// The tasks of a licence that its proof shows.
    ///
    /// # Errors
    ///
    /// [`ProofRefusal`]
    pub fn verify(&self, licence: &Licence, proof: &Proof) -> Result<Vec<Task>, ProofRefusal> {
        if licence.registered >= self.epoch {
            return Err(ProofRefusal::TooNew { registered: licence.registered, epoch: self.epoch });
        }
        let output = proof.verify(&licence.key, &self.ticket(licence.number));
        output.map(|output| self.tasks(&output)).ok_or(ProofRefusal::Wrong(licence.number))
    }

    /// Whether a licence was to check a container in a period, and at which seconds.
    ///
    /// # Errors
    ///
    /// [`ProofRefusal`]
    pub fn verify_task(
        &self,
        licence: &Licence,
        proof: &Proof,
        container: u32,
        owner: AccountId,
        period: u8,
    ) -> Result<Vec<u16>, ProofRefusal> {
        if licence.owner == owner {
            return Err(ProofRefusal::Own(licence.number));
        }
        let tasks = self.verify(licence, proof)?;
        let mine = tasks.iter().filter(|task| (task.container, task.period) == (container, period));
        let seconds: Vec<_> = mine.map(|task| task.second).collect();
        if seconds.is_empty() {
            return Err(ProofRefusal::NotAssigned { licence: licence.number, container, period });
        }
        Ok(seconds)
    }
}

/// Why a proof shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {
    /// The key was registered when the seed could be known.
    #[error("the key was registered in epoch {registered}: it counts after it, not in {epoch}")]
    TooNew {
        /// When.
        registered: u64,
        /// For which epoch it was used.
        epoch: u64,
    },
    /// Not made by the licence's key for this epoch.
    #[error("the proof is not one of licence {0} for this epoch and seed")]
    Wrong(u32),
    /// A licence does not check its owner's containers.
    #[error("licence {0} belongs to the container's owner: its report does not count")]
    Own(u32),
    /// It is not among its tasks.
    #[error("licence {licence} was not to check container {container} in period {period}")]
    NotAssigned {
        /// The licence.
        licence: u32,
        /// The container's place.
        container: u32,
        /// The period.
        period: u8,
    },
}

/// A word as a number below `bound`: the high half of their product.
fn scaled(word: u32, bound: u32) -> u32 {
    let [a, b, c, d, ..] = (u64::from(word) * u64::from(bound)).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
