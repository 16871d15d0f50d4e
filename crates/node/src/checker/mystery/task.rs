//! Small ordinary tasks with a result that is known beforehand, drawn from a seed.

use sha2::{Digest as _, Sha256};
use welkin_proto::Terms;
use welkin_proto::app_of_image;
use welkin_proto::lease::Launch;
use welkin_types::task::Needs;
use welkin_types::{CapacityType, Policy, Price};

use crate::buyer::Ask;

/// How long a task waits for a container, as any that does not say.
const QUEUE: std::time::Duration = std::time::Duration::from_secs(30);
/// How long a start may take, likewise.
const START_SECONDS_MAX: u64 = 300;
/// The most bytes of which a checksum is taken.
const SUMMED_BYTES_MAX: u32 = 4 << 20;
/// The most numbers that are sorted.
const SORTED_MAX: u32 = 64;
/// The most rounds of a loop.
const ROUNDS_MAX: u32 = 20_000;

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// A checksum of so many equal bytes, after a pause.
    Sum { bytes: u32, seconds: u32 },
    /// Numbers in order, with a pause in between.
    Sort { numbers: Vec<u16>, seconds: u32 },
    /// A sum in a loop of the shell, then a pause.
    Add { rounds: u32, step: u32, seconds: u32 },
}

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// What is run.
    pub(super) task: Task,
    policy: Policy,
}

/// Numbers from a seed.
struct Draws {
    seed: [u8; 32],
    count: u32,
}

impl Draws {
    fn below(&mut self, bound: u32) -> u32 {
        self.count += 1;
        let hash = Sha256::new().chain_update(self.seed).chain_update(self.count.to_be_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, ..] = hash;
        u32::from_be_bytes([a, b, c, d]) % bound.max(1)
    }
}

impl Drawn {
    /// What a seed says; it runs no longer than so many seconds.
    pub(super) fn of(seed: [u8; 32], seconds_max: u32) -> Self {
        let mut draws = Draws { seed, count: 0 };
        // Most sessions are short, few are long.
        let longest = 1 + draws.below(seconds_max.max(1));
        let seconds = 1 + draws.below(longest);
        let task = match draws.below(3) {
            0 => Task::Sum { bytes: 1 + draws.below(SUMMED_BYTES_MAX), seconds },
            1 => {
                let count = 2 + draws.below(SORTED_MAX - 1);
                let number = |_| u16::try_from(draws.below(10_000)).unwrap_or(0);
                Task::Sort { numbers: (0..count).map(number).collect(), seconds }
            }
            _ => {
                Task::Add { rounds: 1 + draws.below(ROUNDS_MAX), step: draws.below(1_000), seconds }
            }
        };
        let policies = [Policy::Cheapest, Policy::FastestStart, Policy::Best];
        let policy = policies[usize::try_from(draws.below(3)).unwrap_or(0) % policies.len()];
        Self { task, policy }
    }

    /// What a container must have: what a task that says nothing asks for.
    pub(super) fn needs(&self) -> Needs {
        let app = Some(app_of_image("host"));
        Needs { app, policy: self.policy, ..Needs::default() }
    }

    /// The whole wish, at no more than this price.
    pub(super) fn ask(&self, needs: Needs, price: Price) -> Ask {
        let launch = Launch {
            image: "host".to_owned(),
            argv: self.task.argv(),
            env: Vec::new(),
            cwd: String::new(),
            cpu_milli: needs.cpu_milli_min,
            memory_bytes: needs.memory_bytes_min,
            disk_bytes: needs.disk_bytes_min,
            shm_bytes: needs.shm_bytes,
            run_seconds_max: 0,
            start_seconds_max: START_SECONDS_MAX,
            name: String::new(),
            terms: Terms::plain(CapacityType::OnDemand, 0),
            checkpoint: None,
        };
        let needs = Needs { max_per_hour: Some(price.hour()), ..needs };
        Ask {
            needs,
            launch,
            secrets: Vec::new(),
            tty: None,
            stdin: false,
            files: false,
            budget: None,
            queue: QUEUE,
        }
    }
}

impl Task {
    /// How long it pauses: about as long as it runs.
    pub(super) const fn seconds(&self) -> u32 {
        match self {
            Self::Sum { seconds, .. } | Self::Sort { seconds, .. } | Self::Add { seconds, .. } => {
                *seconds
            }
        }
    }

    /// The command.
    fn argv(&self) -> Vec<String> {
        let script = match self {
            Self::Sum { bytes, seconds } => {
                format!("sleep {seconds}; head -c {bytes} /dev/zero | sha256sum | cut -c 1-64")
            }
            Self::Sort { numbers, seconds } => {
                let numbers: Vec<_> = numbers.iter().map(u16::to_string).collect();
                format!("sleep {seconds}; printf '%s\\n' {} | sort -n", numbers.join(" "))
            }
            Self::Add { rounds, step, seconds } => format!(
                "i=0; s=0; while [ $i -lt {rounds} ]; do i=$((i+1)); s=$((s+i*{step})); done; \
                 echo $s; sleep {seconds}"
            ),
        };
        vec!["sh".to_owned(), "-c".to_owned(), script]
    }

    /// What it prints.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Sum { bytes, .. } => {
                let zeros = vec![0; usize::try_from(*bytes).unwrap_or(0)];
                let hash: [u8; 32] = Sha256::digest(zeros).into();
                let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{hex}\n")
            }
            Self::Sort { numbers, .. } => {
                let mut sorted = numbers.clone();
                sorted.sort_unstable();
                sorted.iter().map(|number| format!("{number}\n")).collect()
            }
            Self::Add { rounds, step, .. } => {
                let rounds = u64::from(*rounds);
                format!("{}\n", rounds * (rounds + 1) / 2 * u64::from(*step))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs what is drawn in a shell of this machine.
    #[test]
    fn every_task_prints_what_is_expected() {
        for number in 0..24_u8 {
            let drawn = Drawn::of([number; 32], 300);
            assert_eq!(drawn.task, Drawn::of([number; 32], 300).task, "a seed says one thing");
            assert!((1..=300).contains(&drawn.task.seconds()));
            let mut task = drawn.task;
            match &mut task {
                Task::Sum { seconds, .. }
                | Task::Sort { seconds, .. }
                | Task::Add { seconds, .. } => *seconds = 0,
            }
            let argv = task.argv();
            let output = std::process::Command::new(&argv[0]).args(&argv[1..]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), task.expected(), "{task:?}");
        }
    }

    #[test]
    fn nothing_in_it_says_that_it_is_none() {
        let drawn = Drawn::of([1; 32], 60);
        let price = Price::per_hour("0.04".parse().unwrap());
        let ask = drawn.ask(drawn.needs(), price);
        // As `welkin run` asks for a task that says nothing else.
        assert_eq!(ask.budget, None);
        assert_eq!((ask.launch.run_seconds_max, ask.launch.name.as_str()), (0, ""));
        assert_eq!(ask.launch.cpu_milli, Needs::CPU_MILLI_DEFAULT);
        assert_eq!(ask.needs.app, Some(app_of_image("host")));
    }
}
