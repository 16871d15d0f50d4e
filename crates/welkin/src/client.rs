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

/// Finds one lease by its id, the beginning of it, or its name (the newest of that name). One of
/// several nodes is `NAME/RANK`.
pub(crate) fn find(home: &Home, text: &str) -> anyhow::Result<KeptLease> {
    let mut found = find_all(home, text)?;
    match (found.pop(), found.len()) {
        (Some(kept), 0) => Ok(kept),
        (_, others) => {
            let text = format!("`{text}` names {} nodes, and this is for one", others + 1);
            Err(Usage::new(text, "name one by its rank, as in NAME/0").into())
        }
    }
}

/// As [`find`], and all nodes of a task by their common name or their gang's id, by rank.
pub(crate) fn find_all(home: &Home, text: &str) -> anyhow::Result<Vec<KeptLease>> {
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
        return Ok(vec![found.clone()]);
    }
    let (name, rank) = match text.rsplit_once('/') {
        Some((name, rank)) => {
            let rank = rank.parse::<u16>().map_err(|_| {
                let text = format!("`{rank}` in `{text}` is no rank of a node");
                Usage::new(text, "a node is NAME/RANK, as in `train/0`")
            })?;
            (name, Some(rank))
        }
        None => (text, None),
    };
    let is_named = |kept: &KeptLease| {
        let is_gang = kept.gang.is_some_and(|member| {
            name.starts_with("gng_") && member.gang.to_string().starts_with(name)
        });
        is_gang || !name.is_empty() && kept.name == name
    };
    let Some(newest) = leases.iter().find(|kept| is_named(kept)) else {
        let text = format!("no lease `{text}` is known here");
        return Err(Usage::new(text, "`welkin ps -a` lists them").into());
    };
    let Some(gang) = newest.gang.map(|member| member.gang) else {
        if rank.is_some() {
            let text = format!("`{name}` is one lease: it has no nodes");
            return Err(Usage::new(text, "leave the rank out").into());
        }
        return Ok(vec![newest.clone()]);
    };
    let rank_of = |kept: &KeptLease| kept.gang.filter(|of| of.gang == gang).map(|of| of.rank);
    let is_wanted = |kept: &&KeptLease| match (rank_of(kept), rank) {
        (Some(own), Some(rank)) => own == rank,
        (own, None) => own.is_some(),
        (None, Some(_)) => false,
    };
    let mut found: Vec<_> = leases.iter().filter(is_wanted).cloned().collect();
    found.sort_by_key(rank_of);
    if found.is_empty() {
        let text = format!("`{name}` has no such node as `{text}`");
        return Err(Usage::new(text, "ranks begin at 0; `welkin ps -a` lists them").into());
    }
    Ok(found)
}
