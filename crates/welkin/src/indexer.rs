//! `welkin indexer`: alone with a file of its own, or one of several that share a database.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tracing::info;
use welkin_net::Endpoint;
use welkin_node::indexer::directory::{Directory, Embedded, Records};
use welkin_node::indexer::standby::{self, Contender, Lead, Timing};
use welkin_node::indexer::{self, Beats, Deps, Kept, Neighbourhood};
use welkin_node::network::Network;
use welkin_node::{Shutdown, identity, outside};
use welkin_types::NodeId;

use crate::cli::Indexer as Args;
use crate::roles::{self, GRACE};
use crate::{Context, Usage, client};

/// The variable that may hold the connection string instead of a file.
const DSN_VARIABLE: &str = "WELKIN_DIRECTORY_DSN";

/// `welkin indexer`
pub(crate) async fn indexer(context: &Context, args: &Args) -> anyhow::Result<()> {
    let shutdown = Shutdown::default();
    let network = client::network(context)?;
    let dir = roles::dir_or(&context.config.indexer.dir, context, "indexer");
    let config = &context.config.indexer;
    let owner = identity::node_key(&dir.join("node.key"))?.id();
    let is_standby = config.standby || args.standby;
    let role = Role { context, network: &network, dir: &dir };
    match dsn(config)? {
        Some(dsn) => {
            let directory = shared(&dsn, owner).await?;
            role.share(directory, is_standby, &shutdown).await
        }
        None if is_standby => {
            let text = "a standby shares a database with the indexer it stands by for";
            let hint = format!("set `indexer.dsn_file` or {DSN_VARIABLE}");
            Err(Usage::new(text, hint).into())
        }
        None => {
            let directory = Arc::new(Embedded::open(&dir.join("directory.redb"))?);
            let endpoint = role.start(directory, Lead::always(), &shutdown).await?;
            roles::until_stopped(shutdown, endpoint).await
        }
    }
}

struct Role<'a> {
    context: &'a Context,
    network: &'a Network,
    dir: &'a Path,
}

impl Role<'_> {
    /// Leads and stands by in turns until it is told to stop.
    async fn share(
        &self,
        directory: Arc<dyn Directory>,
        is_standby: bool,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let listen = &self.context.config.indexer.listen;
        let heartbeat_port = self.context.config.indexer.heartbeat_port;
        if roles::socket_addr(listen)?.port() == 0 || heartbeat_port == 0 {
            let text = "indexers that share a database must be found where they are not yet";
            let hint = "name the ports, `indexer.listen = \"IP:PORT\"` and `heartbeat_port`, and all \
                        addresses behind one key in the network's file: nod_…@IP:PORT,IP:PORT";
            return Err(Usage::new(text, hint).into());
        }
        let contender = Contender::new(Arc::clone(&directory), Timing::default());
        let serve = |won: standby::Won, part: Shutdown| {
            let directory = Arc::clone(&directory);
            async move { self.start(directory, won.lead, &part).await }
        };
        let mut running = std::pin::pin!(standby::run(&contender, is_standby, shutdown, serve));
        tokio::select! {
            ended = &mut running => ended,
            stopped = roles::stop_signal() => {
                stopped?;
                info!("stopping");
                shutdown.ask();
                let ended = tokio::time::timeout(GRACE, running).await;
                shutdown.finish(GRACE).await;
                ended.unwrap_or(Ok(()))
            }
        }
    }

    async fn start(
        &self,
        directory: Arc<dyn Directory>,
        lead: Lead,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Endpoint> {
        let (network, listen) = (self.network, &self.context.config.indexer.listen);
        let domain = network.domain();
        let relay = network.relay.as_ref();
        let node = roles::node(self.dir, &domain, listen, &indexer::ALPNS, relay).await?;
        let settle = node.remote_settle(&self.context.config.chain, network, shutdown)?;
        let endpoint = node.endpoint.clone();
        let beats = self.beats(&*directory, lead.clone(), &endpoint).await?;
        let neighbourhood = Neighbourhood {
            operator: node.delegation,
            region: self.context.config.indexer.region.clone(),
            seeds: network.indexers.clone(),
        };
        let (endpoint_of, key) = (node.endpoint, node.key);
        let deps = Deps { endpoint: endpoint_of, key, domain, settle, beats, neighbourhood };
        let records = Some(Arc::new(Records::open(directory).await?));
        let (addr, _) = indexer::start_kept(deps, Kept { records, lead }, shutdown);
        roles::announce(self.context, "indexer", &addr.to_string())?;
        Ok(endpoint)
    }
}

impl Role<'_> {
    /// Heartbeats, with the sessions of the folder or of those that share the directory.
    async fn beats(
        &self,
        directory: &dyn Directory,
        lead: Lead,
        endpoint: &Endpoint,
    ) -> anyhow::Result<Beats> {
        let (config, dir) = (&self.context.config.indexer, self.dir.to_owned());
        if !directory.is_shared() {
            return roles::beats(config, dir, endpoint);
        }
        let sessions = directory.load_sessions(outside::now()).await?;
        let ip = endpoint.bound().first().map(SocketAddr::ip);
        Ok(Beats::open_shared(config.beats(dir, ip), lead, sessions)?)
    }
}

/// The connection string, from the variable or the file.
fn dsn(config: &indexer::Config) -> anyhow::Result<Option<String>> {
    if let Ok(dsn) = std::env::var(DSN_VARIABLE) {
        return Ok(Some(dsn));
    }
    let file = &config.dsn_file;
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    use std::os::unix::fs::PermissionsExt as _;
    let read = || format!("failed to read `indexer.dsn_file` {}", file.display());
    let mode = std::fs::metadata(file).with_context(read)?.permissions().mode();
    if mode & 0o077 != 0 {
        let text = format!("others can read {}, in which a password may stand", file.display());
        return Err(Usage::new(text, format!("run `chmod 600 {}`", file.display())).into());
    }
    Ok(Some(std::fs::read_to_string(file).with_context(read)?))
}

#[cfg(feature = "postgres")]
async fn shared(dsn: &str, owner: NodeId) -> anyhow::Result<Arc<dyn Directory>> {
    let dsn = welkin_directory::Dsn::parse(dsn)
        .map_err(|error| Usage::new(format!("the directory's database: {error}"), ""))?;
    Ok(Arc::new(welkin_directory::Postgres::open(dsn, owner).await?))
}

#[cfg(not(feature = "postgres"))]
#[expect(clippy::unused_async, reason = "with PostgreSQL built in it waits for the database")]
async fn shared(_: &str, _: NodeId) -> anyhow::Result<Arc<dyn Directory>> {
    let text =
        "a database is named for the directory, and this program is built without PostgreSQL";
    Err(Usage::new(text, "build it with `--features postgres`").into())
}
