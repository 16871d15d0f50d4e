//! What the account's machine remembers of tasks that wait in a queue: one small file each, kept by
//! the process that waits.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use welkin_types::{NodeId, TicketId, UnixMillis};

use super::home::{Home, HomeError, read_json, write_json};
use crate::outside;

/// A process that has not written for so long does not wait any more: it is told where it stands
/// every ten seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Tasks that are listed.
const LISTED_MAX: usize = 1_000;

/// A task that waits in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptWait {
    /// Its name here.
    pub ticket: TicketId,
    /// The task's name for people.
    pub name: String,
    /// The command, for people.
    pub command: String,
    /// At which indexer; `None` where it has no queue.
    pub indexer: Option<NodeId>,
    /// Since when.
    pub since: UnixMillis,
    /// Until when at most.
    pub until: UnixMillis,
    /// From 1; 0 where it is not known.
    pub position: u32,
    /// Of how many.
    pub of: u32,
    /// Why, for people.
    pub why: String,
    /// The estimated wait from the last word on, in milliseconds.
    pub estimate_ms: Option<u64>,
    /// When this was written.
    pub updated: UnixMillis,
}

impl Home {
    fn wait_path(&self, ticket: TicketId) -> PathBuf {
        self.dir().join("queued").join(format!("{ticket}.json"))
    }

    /// Writes down that a task waits.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn save_wait(&self, wait: &KeptWait) -> Result<(), HomeError> {
        write_json(&self.wait_path(wait.ticket), wait)
    }

    /// The task does not wait any more.
    pub fn remove_wait(&self, ticket: TicketId) {
        // A file that is left is too old to count in a minute.
        let _ = fs::remove_file(self.wait_path(ticket));
        let _ = fs::remove_file(self.stop_path(ticket));
    }

    fn stop_path(&self, ticket: TicketId) -> PathBuf {
        self.wait_path(ticket).with_extension("stop")
    }

    /// Asks the process that waits to give its place up.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`]
    pub fn stop_wait(&self, ticket: TicketId) -> Result<(), HomeError> {
        write_json(&self.stop_path(ticket), &())
    }

    /// Whether it was asked to.
    pub fn is_wait_stopped(&self, ticket: TicketId) -> bool {
        self.stop_path(ticket).exists()
    }

    /// The tasks that wait, the oldest first. Files of processes that are gone are removed.
    ///
    /// # Errors
    ///
    /// [`HomeError::Io`] if the folder can't be read.
    pub fn waits(&self) -> Result<Vec<KeptWait>, HomeError> {
        let folder = self.dir().join("queued");
        let io = |source| HomeError::Io { what: "read", path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(error)),
        };
        let now = outside::now();
        let mut waits: Vec<KeptWait> = Vec::new();
        for entry in entries.take(LISTED_MAX) {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == "stop")
                && !path.with_extension("json").exists()
            {
                // Whoever was asked is gone.
                drop(fs::remove_file(&path));
            }
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read_json::<KeptWait>(&path) {
                Ok(Some(wait)) if now.since(wait.updated) < SILENCE_MAX => waits.push(wait),
                Ok(None) => (),
                Ok(Some(_)) | Err(_) => drop(fs::remove_file(&path)),
            }
        }
        waits.sort_by_key(|wait| (wait.since, wait.ticket));
        Ok(waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_said_nothing_for_long_does_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        assert_eq!(home.waits().unwrap(), []);
        let wait = |number, updated| KeptWait {
            ticket: TicketId::from_bytes([number; 16]),
            name: String::new(),
            command: "true".to_owned(),
            indexer: None,
            since: UnixMillis(u64::from(number)),
            until: UnixMillis(9),
            position: 1,
            of: 2,
            why: "busy".to_owned(),
            estimate_ms: None,
            updated,
        };
        let now = outside::now();
        let (present, later) = (wait(1, now), wait(2, now));
        for wait in [&later, &present, &wait(3, UnixMillis(0))] {
            home.save_wait(wait).unwrap();
        }
        assert_eq!(home.waits().unwrap(), [present.clone(), later.clone()]);
        assert!(!home.is_wait_stopped(later.ticket));
        home.stop_wait(later.ticket).unwrap();
        assert!(home.is_wait_stopped(later.ticket) && home.waits().unwrap().len() == 2);
        home.remove_wait(later.ticket);
        home.stop_wait(later.ticket).unwrap();
        assert_eq!(home.waits().unwrap(), [present]);
        assert!(!home.is_wait_stopped(later.ticket), "nobody is there to hear it");
        assert_eq!(fs::read_dir(folder.path().join("queued")).unwrap().count(), 1);
    }
}
