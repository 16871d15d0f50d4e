//! The settlement service of a network: the way to its chain, and the list of its checkers.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use welkin_chain::http::Http;
use welkin_chain::node::{Expected, NodeError};
use welkin_evm::Chain;
use welkin_proto::Domain;
use welkin_proto::settle::{EpochView, RPC_BYTES_MAX, SettleRefusal, SettleReply, SettleRequest};
use welkin_store::{Batch, CommitError, Db, OpenError};
use welkin_types::NodeId;

use super::forward::Forward;
use crate::outside;

const META: &str = "meta";
const SEED: &[u8] = b"seed";
const CHECKERS: &[u8] = b"checkers";

/// The most checkers that the service keeps.
const CHECKERS_MAX: usize = 10_000;

/// How the service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Where signatures hold.
    pub domain: Domain,
    /// How long an epoch lasts, in seconds.
    pub epoch_seconds: u64,
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
    checkers: Mutex<BTreeSet<NodeId>>,
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
        let checkers = find(CHECKERS)
            .and_then(|value| postcard::from_bytes::<BTreeSet<NodeId>>(value).ok())
            .unwrap_or_default();
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
        Ok(Self { config, backend, seed, checkers: Mutex::new(checkers), db })
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
            SettleRequest::Epoch { epoch } => SettleReply::Epoch(self.epoch(epoch)),
            SettleRequest::RegisterChecker => match self.register(node).await {
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

    async fn register(&self, node: NodeId) -> Result<(), SettleRefusal> {
        let bytes = {
            let mut checkers = self.checkers.lock().unwrap_or_else(PoisonError::into_inner);
            if checkers.contains(&node) {
                return Ok(());
            }
            if checkers.len() >= CHECKERS_MAX {
                return Err(SettleRefusal::Range);
            }
            checkers.insert(node);
            postcard::to_stdvec(&*checkers).map_err(|_| SettleRefusal::Storage)?
        };
        let mut batch = Batch::default();
        batch.put(META, CHECKERS, bytes);
        self.db.commit(batch).await.map_err(|error| {
            tracing::error!(%error, "the list of checkers can't be written");
            SettleRefusal::Storage
        })
    }

    fn epoch(&self, epoch: u64) -> EpochView {
        let mut hasher = Sha256::new();
        hasher.update(b"welkin/epoch/1");
        hasher.update(self.config.domain.chain_id.to_be_bytes());
        hasher.update(self.seed);
        hasher.update(epoch.to_be_bytes());
        let checkers = self.checkers.lock().unwrap_or_else(PoisonError::into_inner);
        EpochView {
            epoch,
            seed: hasher.finalize().into(),
            checkers: checkers.iter().copied().collect(),
            epoch_seconds: self.config.epoch_seconds,
        }
    }
}
