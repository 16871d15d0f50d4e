//! What it takes to place a lease once more, kept for the process that will do it.
//!
//! A lease that runs on without its client may lose its host like any other. The task stands in a
//! file of its own beside the lease's, until the lease has ended for good or another has taken its
//! place. Values of secrets are not in it: the process that keeps the lease has them in memory.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use welkin_lease::Retry;
use welkin_proto::lease::{Launch, Secret, TermSize};
use welkin_types::task::Needs;
use welkin_types::{LeaseState, Usd};

use super::{Ask, KeptLease};

/// The task of a lease that may be placed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTask {
    /// What a container must have.
    pub needs: Needs,
    /// What runs in it.
    pub launch: Launch,
    /// The names of its secret variables.
    pub secrets: Vec<String>,
    /// Its terminal's size, if it has one.
    pub tty: Option<TermSize>,
    /// The most it may cost each time.
    pub budget: Option<Usd>,
    /// How long one search for a container may take.
    pub queue: Duration,
    /// Files of this machine: from, to, and whether `to` is the whole name.
    pub files: Vec<(PathBuf, String, bool)>,
    /// When it is placed again.
    pub retry: Retry,
}

impl KeptTask {
    /// Keeps what was asked for. Paths are to be absolute: another process uses them.
    pub fn new(ask: &Ask, files: Vec<(PathBuf, String, bool)>, retry: Retry) -> Self {
        Self {
            needs: ask.needs.clone(),
            launch: ask.launch.clone(),
            secrets: ask.secrets.iter().map(|(name, _)| name.clone()).collect(),
            tty: ask.tty,
            budget: ask.budget,
            queue: ask.queue,
            files,
            retry,
        }
    }

    /// Whether the lease, ended like this, is to be placed again.
    pub fn is_due(&self, kept: &KeptLease) -> bool {
        self.retry.again(kept.state().0, kept.tries, crate::outside::now())
    }

    /// What to ask for, with these secrets; `None` where a secret is not among them. Nobody is
    /// there any more to send standard input.
    pub fn ask(&self, secrets: &[(String, Secret)]) -> Option<Ask> {
        let is_there = |name: &String| secrets.iter().any(|(known, _)| known == name);
        self.secrets.iter().all(is_there).then(|| Ask {
            needs: self.needs.clone(),
            launch: self.launch.clone(),
            secrets: secrets.to_vec(),
            tty: self.tty,
            stdin: false,
            files: !self.files.is_empty(),
            budget: self.budget,
            queue: self.queue,
        })
    }
}

impl KeptLease {
    /// Whether this state is one after which a task may be placed again at all.
    pub fn may_be_replaced(&self) -> bool {
        matches!(self.state().0, LeaseState::Lost | LeaseState::Preempted | LeaseState::Failed)
    }
}

#[cfg(test)]
mod tests {
    use welkin_proto::Terms;

    use super::*;

    fn task(secrets: &[&str]) -> KeptTask {
        let needs = Needs::default();
        let launch = Launch {
            image: "host".to_owned(),
            argv: vec!["true".to_owned()],
            env: vec![("A".to_owned(), "b".to_owned())],
            cwd: String::new(),
            cpu_milli: 1_000,
            memory_bytes: 1 << 20,
            disk_bytes: 1 << 20,
            shm_bytes: 0,
            terms: Terms::ON_DEMAND,
            checkpoint: None,
            run_seconds_max: 0,
            start_seconds_max: 5,
            name: "job".to_owned(),
        };
        let secret = |name: &&str| ((*name).to_owned(), Secret::new("value-of-it".to_owned()));
        let ask = Ask {
            needs,
            launch,
            secrets: secrets.iter().map(secret).collect(),
            tty: None,
            stdin: true,
            files: false,
            budget: Some(Usd::from_micros(5)),
            queue: Duration::from_secs(30),
        };
        KeptTask::new(&ask, Vec::new(), Retry { on_lost: true, max: 2, ..Retry::default() })
    }

    #[test]
    fn a_task_survives_its_file_and_its_secrets_are_not_in_it() {
        let task = task(&["KEY"]);
        let text = serde_json::to_string(&task).unwrap();
        assert!(!text.contains("value-of-it"), "{text}");
        assert_eq!(serde_json::from_str::<KeptTask>(&text).unwrap(), task);
    }

    #[test]
    fn without_its_secrets_nothing_is_asked_for() {
        let task = task(&["KEY"]);
        assert!(task.ask(&[]).is_none());
        let secrets = [("KEY".to_owned(), Secret::new("v".to_owned()))];
        let ask = task.ask(&secrets).unwrap();
        assert!(!ask.stdin, "nobody sends any");
        assert_eq!(ask.secrets.len(), 1);
    }
}
