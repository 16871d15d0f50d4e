//! The settlement service of a network: the way to its chain, and the list of its checkers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use welkin_chain::http::Http;
use welkin_chain::node::{Expected, NodeError};
use welkin_evm::Chain;
use welkin_proto::Domain;
use welkin_proto::settle::{EpochView, RPC_BYTES_MAX, SettleRefusal, SettleReply, SettleRequest};
use welkin_store::{Batch, CommitError, Db, OpenError};
use welkin_types::NodeId;

use super::forward::Forward;
use super::register::Register;
use crate::outside;

const META: &str = "meta";
const SEED: &[u8] = b"seed";
/// The time at which the last epoch's list was first shown, in milliseconds.
const SHOWN: &[u8] = b"shown";
const CHECKERS: &str = "checkers";

/// How the service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Where signatures hold.
    pub domain: Domain,
    /// How long an epoch lasts, in seconds.
    pub epoch_seconds: u64,
    /// Who registers no later than this after a network's first checker checks in its first epoch.
    pub founding: Duration,
}

impl ServiceConfig {
    /// The usual [`Self::founding`]: checkers of one network that are started together are in it.
    pub const FOUNDING: Duration = Duration::from_secs(5);
}

/// Why the service can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The database can't be opened.
    #[error("failed to open the settlement service's database")]
    Open(#[source] OpenError),
    /// The database can't be read or written.
    #[error("failed to read the settlement service's database")]
    Read(#[source] CommitError),
}

/// Who carries the chain out.
#[derive(Debug)]
enum Backend {
    /// This process.
    Embedded(Arc<Chain>),
    /// Another node.
    Remote(Box<Forward>),
}

/// The settlement service.
#[derive(Debug)]
pub struct Service {
    config: ServiceConfig,
    backend: Backend,
    seed: [u8; 32],
    /// Held while a checker is written, so that no list is shown meanwhile that it may come into.
    checkers: tokio::sync::Mutex<Register>,
    db: Db,
}

impl Service {
    /// Opens the list of checkers beside a chain.
    ///
    /// # Errors
    ///
    /// [`ServiceError`] where the list can't be read.
    pub async fn open(
        path: &Path,
        chain: Arc<Chain>,
        config: ServiceConfig,
    ) -> Result<Self, ServiceError> {
        Self::with(path, Backend::Embedded(chain), config).await
    }

    /// As [`Self::open`], over another node of a chain that has the contracts on it already.
    ///
    /// # Errors
    ///
    /// [`ServiceError`] where the list can't be read. Whether it is the right node is asked with
    /// [`Self::check`], and again before its first answer.
    pub async fn remote(
        path: &Path,
        node: Http,
        config: ServiceConfig,
    ) -> Result<Self, ServiceError> {
        let contract = welkin_chain::address(config.domain.contract);
        let expected = Expected { chain_id: config.domain.chain_id, contract };
        Self::with(path, Backend::Remote(Box::new(Forward::new(node, expected))), config).await
    }

    async fn with(
        path: &Path,
        backend: Backend,
        config: ServiceConfig,
    ) -> Result<Self, ServiceError> {
        let db = Db::open(path).map_err(ServiceError::Open)?;
        let meta = db.load(META).map_err(ServiceError::Read)?;
        let find = |name: &[u8]| meta.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let rows = db.load(CHECKERS).map_err(ServiceError::Read)?;
        let rows = rows.iter().filter_map(|(node, row)| {
            let node = <[u8; 32]>::try_from(node.as_slice()).ok()?;
            Some((NodeId::from_bytes(node), postcard::from_bytes(row).ok()?))
        });
        let noted = find(SHOWN).and_then(|at| <[u8; 8]>::try_from(at.as_slice()).ok());
        let noted = noted.map_or(0, u64::from_be_bytes);
        let checkers = Register::new(rows, config.epoch_seconds, config.founding, noted);
        let seed = match find(SEED).and_then(|value| <[u8; 32]>::try_from(value.as_slice()).ok()) {
            Some(seed) => seed,
            None => {
                let seed: [u8; 32] = outside::random();
                let mut batch = Batch::default();
                batch.put(META, SEED, seed.to_vec());
                db.commit(batch).await.map_err(ServiceError::Read)?;
                seed
            }
        };
        Ok(Self { config, backend, seed, checkers: tokio::sync::Mutex::new(checkers), db })
    }

    /// Where signatures hold.
    pub const fn domain(&self) -> &Domain {
        &self.config.domain
    }

    /// The chain, where it is carried out here.
    pub const fn chain(&self) -> Option<&Arc<Chain>> {
        match &self.backend {
            Backend::Embedded(chain) => Some(chain),
            Backend::Remote(_) => None,
        }
    }

    /// Whether the chain is the network's.
    ///
    /// # Errors
    ///
    /// [`NodeError`] where it is another, or can't be asked now.
    pub async fn check(&self) -> Result<(), NodeError> {
        match &self.backend {
            Backend::Embedded(_) => Ok(()),
            Backend::Remote(node) => node.check().await,
        }
    }

    /// Answers one question of a node.
    pub async fn call(&self, node: NodeId, request: SettleRequest) -> SettleReply {
        match request {
            SettleRequest::Rpc(body) => match self.rpc(&body).await {
                Ok(answer) => SettleReply::Rpc(answer),
                Err(refusal) => SettleReply::Refused(refusal),
            },
            SettleRequest::Epoch { epoch } => match self.epoch(epoch).await {
                Ok(view) => SettleReply::Epoch(view),
                Err(refusal) => SettleReply::Refused(refusal),
            },
            SettleRequest::RegisterChecker { vrf } => match self.register(node, vrf).await {
                Ok(()) => SettleReply::Done,
                Err(refusal) => SettleReply::Refused(refusal),
            },
        }
    }

    async fn rpc(&self, body: &[u8]) -> Result<Vec<u8>, SettleRefusal> {
        let answer = match &self.backend {
            Backend::Embedded(chain) => chain.rpc(body).await,
            Backend::Remote(node) => node.rpc(body).await?,
        };
        if answer.len() <= RPC_BYTES_MAX {
            return Ok(answer);
        }
        let id = serde_json::from_slice::<serde_json::Value>(body)
            .map_or(serde_json::Value::Null, |question| question["id"].clone());
        // The code that nodes use for "limit exceeded" (EIP-1474).
        let error = serde_json::json!({
            "jsonrpc": "2.0",
            "id": id,
            "error": {"code": -32005, "message": "the answer is too large: ask for fewer blocks"},
        });
        Ok(error.to_string().into_bytes())
    }

    async fn register(&self, node: NodeId, vrf: [u8; 32]) -> Result<(), SettleRefusal> {
        let mut checkers = self.checkers.lock().await;
        let Some(row) = checkers.row(node, vrf, outside::now().0)? else { return Ok(()) };
        let bytes = postcard::to_stdvec(&row).map_err(|_| SettleRefusal::Storage)?;
        let mut batch = Batch::default();
        batch.put(CHECKERS, node.as_bytes(), bytes);
        self.db.commit(batch).await.map_err(|error| {
            tracing::error!(%error, "the list of checkers can't be written");
            SettleRefusal::Storage
        })?;
        checkers.insert(node, row);
        Ok(())
    }

    /// An epoch's seed, only with its list: who is on that can't be chosen by the seed.
    async fn epoch(&self, epoch: u64) -> Result<EpochView, SettleRefusal> {
        let mut register = self.checkers.lock().await;
        let checkers = register.list(epoch, outside::now().0)?;
        if let Some(at) = register.to_note() {
            let mut batch = Batch::default();
            batch.put(META, SHOWN, at.to_be_bytes().to_vec());
            self.db.commit(batch).await.map_err(|error| {
                tracing::error!(%error, "when a list was shown can't be written");
                SettleRefusal::Storage
            })?;
            register.note(at);
        }
        drop(register);
        let mut hasher = Sha256::new();
        hasher.update(b"welkin/epoch/1");
        hasher.update(self.config.domain.chain_id.to_be_bytes());
        hasher.update(self.seed);
        hasher.update(epoch.to_be_bytes());
        let seed = hasher.finalize().into();
        Ok(EpochView { epoch, seed, checkers, epoch_seconds: self.config.epoch_seconds })
    }
}
