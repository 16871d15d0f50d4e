//! Sessions of an indexer that takes over from another one with the same key.

use std::sync::atomic::Ordering;

use tracing::info;
use welkin_directory::SessionRow;
use welkin_match::{Presence, SessionRecord};
use welkin_proto::heartbeat::Secret;
use welkin_types::NodeId;

use super::{Beats, BeatsConfig, BeatsError};
use crate::indexer::standby::Lead;
use crate::{identity, outside};

impl Beats {
    /// As [`Self::open`], with the sessions of a directory in place of those in the folder, which
    /// may be of an earlier time of leading.
    ///
    /// # Errors
    ///
    /// [`BeatsError`] where the secret is unusable or the address is taken.
    pub fn open_shared(
        config: BeatsConfig,
        lead: Lead,
        hosts: Vec<(NodeId, Vec<SessionRow>)>,
    ) -> Result<Self, BeatsError> {
        let secret = identity::secret(&config.dir.join("heartbeat.key"));
        let mut presence = Presence::new(Secret::from_bytes(secret.map_err(BeatsError::Secret)?));
        let hosts = hosts
            .into_iter()
            .map(|(host, rows)| (host, rows.iter().filter_map(record).collect::<Vec<_>>()));
        let sessions = presence.adopt(outside::now(), hosts);
        info!(sessions, "sessions of the directory are taken up");
        Self::build(config, presence, lead)
    }

    /// The sessions of a host, for the directory.
    pub(in crate::indexer) fn rows_of(&self, host: NodeId) -> Vec<SessionRow> {
        let records = self.presence().records_of(host);
        records.into_iter().map(row).collect()
    }

    /// While hosts are taken up nobody is asked to announce itself anew.
    pub(in crate::indexer) fn take_up(&self, is_taking_up: bool) {
        self.0.is_taking_up.store(is_taking_up, Ordering::Release);
    }
}

fn record(row: &SessionRow) -> Option<SessionRecord> {
    let SessionRow { container, session, key_epoch, salt } = *row;
    Some(SessionRecord { container, session, epoch: u16::try_from(key_epoch).ok()?, salt })
}

fn row(record: SessionRecord) -> SessionRow {
    let SessionRecord { container, session, epoch, salt } = record;
    SessionRow { container, session, key_epoch: epoch.into(), salt }
}
