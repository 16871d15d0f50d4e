//! What every command about the contracts begins and ends with: a way to the chain, an account, and
//! sending what is to be sent: shown first, asked for, one transaction after the other.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U256};
use anyhow::Context as _;
use serde::Serialize;
use welkin_chain::deployment::{Contract, Deployment};
use welkin_chain::ops::typed_data::{self, Signature};
use welkin_chain::ops::{Act, Desk, OpsError};
use welkin_chain::outbox::{OutboxConfig, Waiting};
use welkin_chain::rpc::{Receipt, Rpc};
use welkin_chain::sender::{SendError, Sender, SenderConfig};
use welkin_net::{Endpoint, EndpointConfig};
use welkin_node::network::Network;
use welkin_node::settlement::{EvmConfig, Line};
use welkin_node::{Shutdown, identity, outside, wire};
use welkin_proto::{AccountKey, Domain, NodeKey};
use welkin_types::AccountId;

use crate::account::{self, Identity};
use crate::cli::{Look, Permit, Sending, Who};
use crate::{Context, Quit, Usage, client, out, terminal};

/// How long a command may act for its account at the settlement service.
const DELEGATION_LASTING: Duration = Duration::from_secs(86_400);
/// After how long a person is told what a transaction waits for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a permission holds where nothing else is said.
const PERMIT_SECONDS: u64 = 3_600;
/// The exit code of a person's no.
const CANCELLED: u8 = 130;

/// A command's desk, and what it was opened with.
#[derive(Debug)]
pub(crate) struct Office {
    pub(crate) desk: Desk,
    /// How transactions go out.
    outbox: OutboxConfig,
    is_gas_free: bool,
    pub(crate) identity: Identity,
    endpoint: Option<Endpoint>,
    shutdown: Shutdown,
}

/// One transaction that took effect.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    pub(crate) what: String,
    pub(crate) to: Address,
    pub(crate) transaction: String,
    pub(crate) block: u64,
    pub(crate) gas_used: u64,
}

/// One transaction that somebody else signs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unsigned<'a> {
    what: &'a str,
    from: Address,
    to: Address,
    data: &'a alloy_primitives::Bytes,
    value: &'static str,
    chain_id: u64,
}

/// The way to the network's chain: one's own node where one is named, else the settlement service.
async fn way(context: &Context, network: &Network) -> anyhow::Result<(Rpc, Endpoint)> {
    let key = NodeKey::from_secret(&outside::random());
    // Only looks and signed transactions go this way: whose name the line is in means nothing.
    let nobody = AccountKey::from_secret(&outside::random()).context("failed to make a key")?;
    let permit = identity::delegate(&network.domain(), &nobody, key.id(), DELEGATION_LASTING)?;
    let mut config = EndpointConfig::new(*key.secret());
    config.relay = network.relay.as_ref().and_then(wire::to_net_relay);
    let endpoint = Endpoint::bind(config).await.context("failed to open the network")?;
    let line = Line::remote(endpoint.clone(), network.settlement.clone(), permit);
    let rpc = context.config.chain.rpc(&network.domain(), &line)?;
    Ok((rpc, endpoint))
}

/// One's own node of the chain, for what can't be asked of a network.
pub(crate) fn own_node(context: &Context) -> anyhow::Result<Rpc> {
    let node = context.config.chain.rpc.http();
    let node = node.map_err(|error| Usage::new(format!("chain.rpc: {error}"), ""))?;
    node.map(Rpc::new).ok_or_else(|| {
        let hint = "set `chain.rpc` in the configuration, or WELKIN_CHAIN__RPC";
        Usage::new("no node of the chain is named", hint).into()
    })
}

/// Where a network's contracts stand.
fn deployment(network: &Network) -> anyhow::Result<Deployment> {
    let contracts = network.places().ok_or_else(|| {
        let text = "the network's file does not say where its contracts stand";
        Usage::new(text, "ask its operator for a newer file")
    })?;
    let (chain_id, first_block) = (network.chain_id, network.first_block);
    Ok(Deployment { chain_id, first_block, contracts })
}

impl Office {
    /// Opens the network of this context in somebody's name.
    pub(crate) async fn open(context: &Context, who: &Who) -> anyhow::Result<Self> {
        Self::for_identity(context, account::identity(context, who)?).await
    }

    /// The same for the account that leases are paid from.
    pub(crate) async fn of_payer(context: &Context, who: &Who) -> anyhow::Result<Self> {
        Self::for_identity(context, account::payer(context, who)?).await
    }

    async fn for_identity(context: &Context, identity: Identity) -> anyhow::Result<Self> {
        let network = client::network(context)?;
        let deployment = deployment(&network)?;
        let evm = context.config.chain.evm(&network)?;
        let (rpc, endpoint) = way(context, &network).await?;
        Ok(Self::new(rpc, Some(endpoint), &evm, deployment, identity))
    }

    /// Opens the contracts of a deployment's file through one's own node; without a file those of
    /// the network.
    pub(crate) async fn of_file(context: &Context, look: &Look) -> anyhow::Result<Self> {
        let Some(path) = &look.deployment else { return Self::open(context, &look.who).await };
        let deployment = Deployment::load(path)?;
        let identity = account::identity(context, &look.who)?;
        let evm = EvmConfig::of(domain(&deployment));
        Ok(Self::new(own_node(context)?, None, &evm, deployment, identity))
    }

    fn new(
        rpc: Rpc,
        endpoint: Option<Endpoint>,
        evm: &EvmConfig,
        deployment: Deployment,
        identity: Identity,
    ) -> Self {
        let desk = Desk::new(rpc, deployment, identity.account);
        let (outbox, is_gas_free) = (evm.outbox, evm.is_gas_free);
        Self { desk, outbox, is_gas_free, identity, endpoint, shutdown: Shutdown::default() }
    }

    /// Closes connections in an orderly way.
    pub(crate) async fn close(self) {
        self.shutdown.finish(Duration::from_millis(200)).await;
        if let Some(endpoint) = self.endpoint {
            let _ = tokio::time::timeout(Duration::from_millis(500), endpoint.close()).await;
        }
    }

    /// Sends transactions, one after the other; none are sent, and none returned, where they are
    /// only to be shown.
    pub(crate) async fn carry_out(
        &self,
        context: &Context,
        sending: &Sending,
        acts: &[Act],
    ) -> anyhow::Result<Option<Vec<Done>>> {
        if acts.is_empty() {
            return Ok(Some(Vec::new()));
        }
        if sending.unsigned || sending.dry_run {
            self.show(context, sending, acts).await?;
            return Ok(None);
        }
        let key = self.identity.key()?;
        if !sending.yes && terminal::is_interactive() {
            for act in acts {
                out::note(&format!("to do: {}", act.what));
            }
            if !terminal::confirm("go on? [Y/n] ").await? {
                return Err(Quit(CANCELLED).into());
            }
        }
        let sender = self.sender(key);
        let mut done = Vec::new();
        for act in acts {
            let sent = send(context, &sender, act).await?;
            told(context, &sent)?;
            done.push(sent);
        }
        Ok(Some(done))
    }

    /// Prints what would be sent. The first is tried without changing anything; those after it
    /// may need it.
    async fn show(&self, context: &Context, sending: &Sending, acts: &[Act]) -> anyhow::Result<()> {
        if let Some(first) = acts.first() {
            self.desk.check(first).await?;
        }
        for act in acts {
            let unsigned = Unsigned {
                what: &act.what,
                from: self.desk.account(),
                to: act.to,
                data: &act.input,
                value: "0x0",
                chain_id: self.desk.deployment().chain_id,
            };
            if context.is_json || sending.unsigned {
                out::json(&unsigned)?;
            } else {
                out::text(&format!("would {}: {} calls {}\n", act.what, unsigned.from, act.to))?;
            }
        }
        if !context.is_quiet && !context.is_json {
            out::note("nothing was sent");
        }
        Ok(())
    }

    fn sender(&self, key: AccountKey) -> Sender {
        let config = SenderConfig {
            chain_id: self.desk.deployment().chain_id,
            outbox: self.outbox,
            is_gas_free: self.is_gas_free,
            clock: Arc::new(outside::now),
        };
        let (sender, work) = Sender::new(self.desk.rpc().clone(), key, config);
        self.shutdown.spawn_until_asked("desk-sender", work);
        sender
    }
}

fn domain(deployment: &Deployment) -> Domain {
    let contract = AccountId::from_bytes(deployment.contracts.escrow.0.0);
    Domain { chain_id: deployment.chain_id, contract }
}

/// Sends one, and says what it waits for where that takes long.
async fn send(context: &Context, sender: &Sender, act: &Act) -> anyhow::Result<Done> {
    let sending = sender.send(Some(act.to), act.input.clone(), false);
    let receipt = patiently(context, sender, sending).await;
    let receipt = receipt.map_err(|error| OpsError::of_send(act.what.clone(), error))?;
    Ok(Done {
        what: act.what.clone(),
        to: act.to,
        transaction: receipt.transaction_hash.to_string(),
        block: receipt.block_number.to(),
        gas_used: receipt.gas_used.to(),
    })
}

/// Waits for a transaction; from time to time a person is told what for.
pub(crate) async fn patiently(
    context: &Context,
    sender: &Sender,
    sending: impl Future<Output = Result<Receipt, SendError>>,
) -> Result<Receipt, SendError> {
    let mut sending = std::pin::pin!(sending);
    loop {
        match tokio::time::timeout(PATIENCE, &mut sending).await {
            Ok(sent) => return sent,
            Err(_) if context.is_quiet => (),
            Err(_) => out::note(match sender.waiting_for() {
                Waiting::Gas { .. } => "waiting: gas costs more than is allowed at present",
                Waiting::Coins => "waiting: the account has too few coins for gas",
                Waiting::Node => "waiting: the chain's node can't be reached",
                _ => "waiting for a block",
            }),
        }
    }
}

fn told(context: &Context, done: &Done) -> anyhow::Result<()> {
    if context.is_json {
        return out::json(done);
    }
    if context.is_quiet {
        return Ok(());
    }
    out::text(&format!("{:<13} {}\n", "transaction", done.transaction))?;
    out::text(&format!("{:<13} {}\n", "", done.what))
}

/// An account's address, as a person writes it.
pub(crate) fn address(what: &str, text: &str) -> Result<Address, Usage> {
    let hint = "an address is 0x and 40 hexadecimal digits";
    let plain = text.parse::<Address>();
    let address = plain.map_err(|_| Usage::new(format!("{what}: `{text}` is no address"), hint))?;
    let digits = text.trim_start_matches("0x");
    let is_mixed = digits.bytes().any(|byte| byte.is_ascii_uppercase())
        && digits.bytes().any(|byte| byte.is_ascii_lowercase());
    // Capitals are a check sum (EIP-55): where there are any, a slip of the finger shows.
    if is_mixed && address.to_checksum(None).trim_start_matches("0x") != digits {
        return Err(Usage::new(
            format!("{what}: the capitals of `{text}` do not fit the address"),
            "is a digit wrong? all small letters are taken without this check",
        ));
    }
    if address.is_zero() {
        return Err(Usage::new(format!("{what}: nobody has the address 0"), hint));
    }
    Ok(address)
}

/// A signature as a person gives it.
pub(crate) fn signature(what: &str, text: &str) -> Result<Signature, Usage> {
    text.parse().map_err(|error| Usage::new(format!("{what}: {error}"), ""))
}

/// Signs typed data with a key that is here.
pub(crate) fn sign(key: &AccountKey, data: &serde_json::Value) -> anyhow::Result<Signature> {
    let signed = key.sign(&typed_data::digest(data)?)?;
    let bytes = [&signed.r[..], &signed.s, &[signed.v]].concat();
    Ok(alloy_primitives::hex::encode(bytes).parse()?)
}

/// A permission for a contract to take so much of the wallet: printed, or signed elsewhere.
#[derive(Debug)]
pub(crate) enum Permission {
    /// It was only to be printed.
    Printed,
    /// It is given by a transaction, where it is missing.
    None,
    /// The wallet signed it, until then.
    Signed(Signature, u64),
}

/// What becomes of the flags of a permission.
pub(crate) async fn permission(
    office: &Office,
    flags: &Permit,
    taker: Contract,
    amount: U256,
) -> anyhow::Result<Permission> {
    let later = outside::now().0 / 1_000 + PERMIT_SECONDS;
    let deadline = flags.deadline.unwrap_or(later);
    if flags.typed_data {
        out::json(&typed_data::permit(&office.desk, taker, amount, deadline).await?)?;
        return Ok(Permission::Printed);
    }
    match &flags.permit {
        Some(text) => Ok(Permission::Signed(signature("--permit", text)?, deadline)),
        None => Ok(Permission::None),
    }
}
