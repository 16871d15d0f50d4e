//! What every client command begins with: the network, the account, a lease by its name.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use welkin_node::Shutdown;
use welkin_node::buyer::{Buyer, BuyerError, Home, KeptLease};
use welkin_node::network::Network;

use crate::{Context, Usage};

/// A client of the network.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) buyer: Arc<Buyer>,
    shutdown: Shutdown,
}

impl Client {
    /// Opens the network of this context.
    pub(crate) async fn open(context: &Context) -> anyhow::Result<Self> {
        let network = network(context)?;
        let shutdown = Shutdown::default();
        let buyer =
            Buyer::open_with(&network, home(context), &context.config.chain, shutdown.clone())
                .await?;
        let region = &context.config.network.region;
        if !region.is_empty() {
            let parsed = region.parse();
            buyer.stand_in(parsed.map_err(|error: welkin_types::NameError| {
                Usage::new(format!("network.region: {error}"), "`welkin config` shows the settings")
            })?);
        }
        Ok(Self { buyer: Arc::new(buyer), shutdown })
    }

    /// Closes connections in an orderly way.
    pub(crate) async fn close(self) {
        self.shutdown.finish(Duration::from_millis(200)).await;
        let _ = tokio::time::timeout(Duration::from_millis(500), self.buyer.close()).await;
    }
}

/// The network's addresses.
pub(crate) fn network(context: &Context) -> anyhow::Result<Network> {
    let file = network_file(context);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Usage::new(
                format!("there is no network in {}", context.dir.display()),
                "start one with `welkin up`, or name its folder with --dir",
            )
            .into());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read {}", file.display()));
        }
    };
    toml::from_str(&text).with_context(|| format!("{} is no network file", file.display()))
}

/// Where the network's addresses are.
pub(crate) fn network_file(context: &Context) -> std::path::PathBuf {
    let named = &context.config.network.file;
    if named.as_os_str().is_empty() { context.dir.join("network.toml") } else { named.clone() }
}

/// What is known of this account's leases.
pub(crate) fn home(context: &Context) -> Home {
    Home::new(context.dir.join("buyer"))
}

/// Finds a lease by its id, the beginning of it, or its name (the newest of that name).
pub(crate) fn find(home: &Home, text: &str) -> anyhow::Result<KeptLease> {
    let (leases, damaged) = home.leases().map_err(BuyerError::Home)?;
    for error in damaged {
        tracing::warn!(error = %welkin_node::chain(&error), "a lease can't be read");
    }
    let prefix = if text.starts_with("lse_") { text.to_owned() } else { format!("lse_{text}") };
    let mut by_id = leases.iter().filter(|kept| kept.lease.to_string().starts_with(&prefix));
    if let Some(found) = by_id.next() {
        if by_id.next().is_some() {
            let text = format!("more than one lease begins with `{text}`");
            return Err(Usage::new(text, "give more of its id").into());
        }
        return Ok(found.clone());
    }
    leases.into_iter().find(|kept| !kept.name.is_empty() && kept.name == text).ok_or_else(|| {
        Usage::new(format!("no lease `{text}` is known here"), "`welkin ps -a` lists them").into()
    })
}
