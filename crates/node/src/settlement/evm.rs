//! Settlement on the contracts: each question becomes a transaction that this account signs, or a
//! look at the contract's state.
//!
//! What is asked may be asked again: a reservation is known by its order, a voucher says what is
//! paid in all, closing twice changes nothing. So an answer that was lost is simply asked for again,
//! whatever became of the transaction.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, FixedBytes, U256, uint};
use alloy_sol_types::{SolCall, SolEvent as _};
use tokio::sync::OnceCell;
use welkin_chain::address;
use welkin_chain::batch::{BatchConfig, Entry, Standing};
use welkin_chain::contracts::{Ath, Escrow, IEscrow, LocalFaucet};
use welkin_chain::deployment::{Deployment, Places};
use welkin_chain::ops::Desk;
use welkin_chain::outbox::OutboxConfig;
use welkin_chain::rpc::{CallRequest, Receipt, Rpc};
use welkin_chain::sender::{Sender, SenderConfig};
use welkin_proto::settle::{
    AccountView, LeaseView, SettleRefusal, SettleReply, SettleRequest, Totals,
};
use welkin_proto::{AccountKey, Domain, Order, SignedByAccount, Voucher};
use welkin_types::{AccountId, BasisPoints, LeaseId, TxId, UnixMillis, Usd};

use super::history::{self, History, Parties, account, lease_word, micros};
use super::refusal::{refusal, rpc_refusal, skipped};
use super::teller::{NotRedeemed, Redeemed, Teller, TellerConfig};
use super::words::{lease_id, order_of, signature, voucher_of};
use super::{Answer, BoxFuture, Contracts, Line, Question, Settlement, SettlementError};
use crate::{Shutdown, outside};

/// How an account's settlement works.
#[derive(Clone, Debug)]
pub struct EvmConfig {
    /// The chain and the escrow contract.
    pub domain: Domain,
    /// The faucet of a local network.
    pub faucet: Option<AccountId>,
    /// How transactions go out.
    pub outbox: OutboxConfig,
    /// Whether gas costs nothing.
    pub is_gas_free: bool,
    /// The first block in which there is anything to look for.
    pub first_block: u64,
    /// How vouchers are collected, where gas costs anything.
    pub batch: BatchConfig,
    /// What one of the chain's coins costs.
    pub coin: Usd,
    /// Where all of the contracts stand, where that is known.
    pub contracts: Option<Places>,
}

impl EvmConfig {
    /// As a network's chain needs it: where it is an embedded one, gas is free and there is a
    /// faucet. For others see [`super::ChainConfig::evm`].
    pub fn of(domain: Domain) -> Self {
        let is_local = domain == Domain::LOCAL;
        let faucet = is_local.then(|| account(welkin_chain::genesis::Places::local().faucet));
        let (outbox, is_gas_free) = (OutboxConfig::default(), is_local);
        let batch = BatchConfig::default();
        let contracts = is_local.then(Places::local);
        let (first_block, coin) = (0, Usd::ZERO);
        Self { domain, faucet, outbox, is_gas_free, first_block, batch, coin, contracts }
    }
}

/// Wei times the price of ATH, for one micro-dollar.
const PRICE_SCALE: U256 = uint!(1_000_000_000_000_000_000_000_000_000_000_U256);

/// How long money stays where a host can get it, as the contract has it.
#[derive(Clone, Copy, Debug)]
struct Periods {
    /// From a lease's last payment until its buyer may take it for abandoned.
    release_grace: Duration,
    /// From a session key's end until its vouchers do.
    thaw: Duration,
}

/// One account's settlement on the contracts.
#[derive(Debug)]
pub struct EvmSettlement {
    account: AccountId,
    config: EvmConfig,
    sender: Sender,
    /// Where gas costs anything.
    teller: Option<Teller>,
    /// The contract's periods.
    periods: OnceCell<Periods>,
    line: Option<Line>,
    history: Mutex<History>,
}

fn id_of(receipt: &Receipt) -> TxId {
    TxId::from_bytes(receipt.transaction_hash.0)
}

impl EvmSettlement {
    /// Settles for the account of `key` over a line to the network's settlement service. What
    /// sends the transactions runs until `shutdown` is asked for.
    pub fn new(line: Line, key: AccountKey, config: EvmConfig, shutdown: &Shutdown) -> Self {
        let rpc = Rpc::new(line.clone());
        Self::over(rpc, Some(line), key, config, shutdown)
    }

    /// As [`Self::new`], over any node of the chain; what only the network's settlement service
    /// knows (checkers, epochs) can be asked where there is a line to it.
    pub fn over(
        rpc: Rpc,
        line: Option<Line>,
        key: AccountKey,
        config: EvmConfig,
        shutdown: &Shutdown,
    ) -> Self {
        let account = key.id();
        let sending = SenderConfig {
            chain_id: config.domain.chain_id,
            outbox: config.outbox,
            is_gas_free: config.is_gas_free,
            clock: Arc::new(outside::now),
        };
        let (sender, work) = Sender::new(rpc, key, sending);
        shutdown.spawn_until_asked("settlement-sender", work);
        let teller = (!config.is_gas_free).then(|| {
            let escrow = address(config.domain.contract);
            let terms = TellerConfig { escrow, batch: config.batch, coin: config.coin };
            let (teller, work) = Teller::new(terms, sender.clone());
            shutdown.spawn_until_asked("settlement-teller", work);
            teller
        });
        let (periods, history) = (OnceCell::new(), Mutex::default());
        Self { account, config, sender, teller, periods, line, history }
    }

    fn rpc(&self) -> &Rpc {
        self.sender.rpc()
    }

    fn escrow(&self) -> Address {
        address(self.config.domain.contract)
    }

    /// Looks at the contract's state.
    async fn look<C: SolCall>(&self, to: Address, call: C) -> Result<C::Return, SettlementError> {
        let request = CallRequest { from: None, to: Some(to), input: call.abi_encode().into() };
        let data = self.rpc().call(&request).await.map_err(|error| rpc_refusal(error, micros))?;
        C::abi_decode_returns(&data).map_err(|_| SettlementError::Confused)
    }

    /// What an amount of wei is worth; at the last price, where there is no fresh one, as it is only
    /// to be shown then.
    async fn micros_of(&self, amount: U256) -> Result<Usd, SettlementError> {
        if amount.is_zero() {
            return Ok(Usd::ZERO);
        }
        let price = match self.price().await {
            Err(SettlementError::Refused(SettleRefusal::StalePrice)) => self.last_price().await?,
            price => price?,
        };
        Ok(micros(amount.saturating_mul(price) / PRICE_SCALE))
    }

    /// What an ATH costs: USD with 18 decimals.
    async fn price(&self) -> Result<U256, SettlementError> {
        // So many wei are worth as many micro-dollars as the price has units.
        let price = self.look(self.escrow(), Escrow::toMicrosCall { amount: PRICE_SCALE }).await?;
        self.history().price = Some(price);
        Ok(price)
    }

    async fn last_price(&self) -> Result<U256, SettlementError> {
        let known = self.history().price;
        if let Some(price) = known {
            return Ok(price);
        }
        let oracle = self.look(self.escrow(), Escrow::oracleCall {}).await?;
        let found = history::last_price(self.rpc(), oracle, self.config.first_block).await;
        let price = found.map_err(|error| rpc_refusal(error, micros))?;
        let price = price.ok_or(SettlementError::Refused(SettleRefusal::StalePrice))?;
        self.history().price = Some(price);
        Ok(price)
    }

    /// Changes the contract's state.
    async fn change<C: SolCall>(&self, call: C) -> Result<Receipt, SettlementError> {
        let sent = self.sender.send(Some(self.escrow()), call.abi_encode().into(), true).await;
        match sent {
            Ok(receipt) => Ok(receipt),
            Err(error) => {
                // Refusals name wei; people read dollars.
                let price = self.price().await.unwrap_or(U256::ZERO);
                Err(refusal(error, |wei| micros(wei.saturating_mul(price) / PRICE_SCALE)))
            }
        }
    }

    async fn answer(&self, question: Question) -> Result<Answer, SettlementError> {
        match question {
            Question::Balance { account } => self.balance(account).await.map(Answer::Account),
            Question::Fund { account, amount, idempotency } => {
                self.fund(account, amount, idempotency).await?;
                self.balance(account).await.map(Answer::Account)
            }
            Question::Reserve { order, amount } => {
                self.reserve(&order, amount).await.map(Answer::Lease)
            }
            Question::Redeem { voucher, amount } => {
                self.redeem(&voucher, amount).await.map(Answer::Lease)
            }
            Question::Close { lease, voucher } => {
                self.close(lease, voucher.as_deref()).await.map(Answer::Lease)
            }
            Question::Release { lease } => self.release(lease).await.map(Answer::Lease),
            Question::Lease { lease } => self.lease(lease).await.map(Answer::Lease),
            Question::Totals => self.totals().await.map(Answer::Totals),
            Question::RegisterChecker { vrf } => {
                match self.service(SettleRequest::RegisterChecker { vrf }).await? {
                    SettleReply::Done => Ok(Answer::Done),
                    SettleReply::Refused(why) => Ok(Answer::Refused(why)),
                    _ => Err(SettlementError::Confused),
                }
            }
            Question::Epoch { epoch } => {
                match self.service(SettleRequest::Epoch { epoch }).await? {
                    SettleReply::Epoch(view) => Ok(Answer::Epoch(view)),
                    SettleReply::Refused(why) => Ok(Answer::Refused(why)),
                    _ => Err(SettlementError::Confused),
                }
            }
        }
    }

    async fn service(&self, request: SettleRequest) -> Result<SettleReply, SettlementError> {
        match &self.line {
            Some(line) => line.ask(request).await,
            None => Ok(SettleReply::Refused(SettleRefusal::NotAllowed)),
        }
    }

    async fn balance(&self, of: AccountId) -> Result<AccountView, SettlementError> {
        let state =
            self.look(self.escrow(), Escrow::accountOfCall { account: address(of) }).await?;
        let mut trail = self.history().sums(of);
        let first = self.config.first_block;
        let sums = history::read_on(self.rpc(), self.escrow(), of, &mut trail, first)
            .await
            .map_err(|error| rpc_refusal(error, micros))?;
        self.history().keep(of, trail);
        Ok(AccountView {
            available: self.micros_of(state.balance.saturating_sub(state.held)).await?,
            held: self.micros_of(state.held).await?,
            deposited: self.micros_of(sums.deposited).await?,
            spent: Usd::from_micros(state.spentMicros),
            earned: sums.earned,
        })
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fund(
        &self,
        account: AccountId,
        amount: Usd,
        idempotency: [u8; 16],
    ) -> Result<(), SettlementError> {
        let no_faucet = || SettlementError::Refused(SettleRefusal::NoFaucet);
        let faucet = self.config.faucet.ok_or_else(no_faucet)?;
        if amount.is_zero() {
            return Err(SettlementError::Refused(SettleRefusal::Range));
        }
        let most = self.look(address(faucet), LocalFaucet::maxMicrosCall {}).await?;
        if amount.micros() > most {
            return Err(no_faucet());
        }
        let call = LocalFaucet::fundCall {
            account: address(account),
            micros: amount.micros(),
            key: FixedBytes::from(idempotency),
        };
        let sent = self.sender.send(Some(address(faucet)), call.abi_encode().into(), true).await;
        sent.map(drop).map_err(|error| refusal(error, micros))
    }

    async fn reserve(
        &self,
        order: &SignedByAccount<Order>,
        amount: Usd,
    ) -> Result<LeaseView, SettlementError> {
        let Order { lease, buyer, operator, .. } = order.message;
        if let Some(why) = self.teller.as_ref().and_then(Teller::no_credit) {
            return Err(SettlementError::NoCredit(why));
        }
        // Known here without a transaction: somebody else's reservation can't be made.
        if operator != self.account {
            return Err(SettlementError::Refused(SettleRefusal::NotAllowed));
        }
        let done = self
            .change(Escrow::reserveCall {
                order: order_of(&order.message),
                signature: signature(&order.signature),
                micros: amount.micros(),
            })
            .await?;
        let parties = Parties { buyer, operator };
        self.history().remember(lease, parties);
        self.view(lease, parties, Some(id_of(&done))).await
    }

    async fn redeem(
        &self,
        voucher: &SignedByAccount<Voucher>,
        beyond: Usd,
    ) -> Result<LeaseView, SettlementError> {
        let lease = voucher.message.lease;
        let parties = self.operated(lease).await?;
        if let Some(teller) = &self.teller {
            let standing = self.standing(parties, voucher).await?;
            let entry = Entry { buyer: parties.buyer, voucher: voucher.clone(), beyond };
            let transaction = match teller.redeem(entry, standing).await {
                Ok(Redeemed::By(transaction)) => Some(transaction),
                Ok(Redeemed::Kept) => None,
                Err(NotRedeemed::Refused(why)) => return Err(skipped(why)),
                Err(NotRedeemed::Failed(error)) => return Err(refusal(error, micros)),
                Err(NotRedeemed::Full(why)) => return Err(SettlementError::NoCredit(why)),
            };
            return self.view(lease, parties, transaction).await;
        }
        let done = self
            .change(Escrow::redeemCall {
                buyer: address(parties.buyer),
                voucher: voucher_of(&voucher.message),
                signature: signature(&voucher.signature),
                holdBeyond: beyond.micros(),
            })
            .await?;
        self.view(lease, parties, Some(id_of(&done))).await
    }

    async fn close(
        &self,
        lease: LeaseId,
        voucher: Option<&SignedByAccount<Voucher>>,
    ) -> Result<LeaseView, SettlementError> {
        let parties = self.operated(lease).await?;
        let buyer = address(parties.buyer);
        let kept = match &self.teller {
            Some(teller) => teller.open(lease).await.map(|entry| entry.voucher),
            None => None,
        };
        // What is kept is not lost to a caller who does not know of it.
        let of = |voucher: &SignedByAccount<Voucher>| voucher.message.amount;
        let voucher = voucher.into_iter().chain(&kept).max_by_key(|voucher| of(voucher));
        let done = match voucher {
            Some(voucher) => {
                self.change(Escrow::closeWithCall {
                    buyer,
                    voucher: voucher_of(&voucher.message),
                    signature: signature(&voucher.signature),
                })
                .await
            }
            None => self.change(Escrow::closeCall { buyer, lease: lease_id(lease) }).await,
        }?;
        if let Some(teller) = &self.teller {
            teller.closed(lease).await;
        }
        self.view(lease, parties, Some(id_of(&done))).await
    }

    async fn release(&self, lease: LeaseId) -> Result<LeaseView, SettlementError> {
        let parties = self.parties(lease).await?;
        if parties.buyer != self.account {
            return Err(SettlementError::Refused(SettleRefusal::NotAllowed));
        }
        let operator = address(parties.operator);
        let call = Escrow::releaseCall { operator, lease: lease_id(lease) };
        let done = match self.change(call).await {
            Ok(receipt) => Some(id_of(&receipt)),
            Err(SettlementError::Refused(SettleRefusal::Closed)) => None,
            Err(error) => return Err(error),
        };
        self.view(lease, parties, done).await
    }

    async fn lease(&self, lease: LeaseId) -> Result<LeaseView, SettlementError> {
        let parties = self.parties(lease).await?;
        let transaction = self.transaction_of(lease).await?;
        self.view(lease, parties, transaction).await
    }

    /// The parties of a lease that this account operates.
    async fn operated(&self, lease: LeaseId) -> Result<Parties, SettlementError> {
        let parties = self.parties(lease).await?;
        if parties.operator == self.account {
            return Ok(parties);
        }
        Err(SettlementError::Refused(SettleRefusal::NotAllowed))
    }

    async fn parties(&self, lease: LeaseId) -> Result<Parties, SettlementError> {
        if let Some(parties) = self.history().parties(lease) {
            return Ok(parties);
        }
        let unsaid = |error| rpc_refusal(error, micros);
        let (first, own) = (self.config.first_block, self.account);
        let found = history::find_parties(self.rpc(), self.escrow(), lease, own, first).await;
        let parties =
            found.map_err(unsaid)?.ok_or(SettlementError::Refused(SettleRefusal::UnknownLease))?;
        self.history().remember(lease, parties);
        Ok(parties)
    }

    /// How a voucher's lease stands; refused here already where it is plain that it would be.
    async fn standing(
        &self,
        of: Parties,
        voucher: &SignedByAccount<Voucher>,
    ) -> Result<Standing, SettlementError> {
        let Voucher { lease, amount, .. } = voucher.message;
        let lane = self.lane(of, lease).await?;
        if !lane.open {
            return Err(SettlementError::Refused(SettleRefusal::Closed));
        }
        if U256::from(amount.micros()) > U256::from(lane.budget) {
            return Err(SettlementError::Refused(SettleRefusal::Range));
        }
        let periods = self.periods.get_or_try_init(|| self.look_up_periods()).await?;
        let now = outside::now();
        let abandoned = UnixMillis(lane.active.to::<u64>().saturating_mul(1_000));
        // Half of the time in which the buyer can't take it back, and a session key's word holds.
        let left = abandoned.after(periods.release_grace).since(now).min(periods.thaw) / 2;
        Ok(Standing {
            paid: Usd::from_micros(lane.paid.to()),
            held: self.micros_of(U256::from(lane.held)).await?,
            redeem_by: now.after(left),
            is_doubtful: voucher.signer(&self.config.domain) != Ok(of.buyer),
        })
    }

    async fn look_up_periods(&self) -> Result<Periods, SettlementError> {
        let grace = self.look(self.escrow(), Escrow::releaseGraceCall {}).await?;
        let thaw = self.look(self.escrow(), Escrow::thawPeriodCall {}).await?;
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Ok(Periods { release_grace: seconds(grace), thaw: seconds(thaw) })
    }

    async fn lane(&self, of: Parties, lease: LeaseId) -> Result<IEscrow::Lane, SettlementError> {
        let call = Escrow::laneOfCall {
            buyer: address(of.buyer),
            operator: address(of.operator),
            lease: lease_id(lease),
        };
        let lane = self.look(self.escrow(), call).await;
        if matches!(lane, Err(SettlementError::Refused(SettleRefusal::UnknownLease))) {
            self.history().forget(lease);
        }
        lane
    }

    async fn view(
        &self,
        lease: LeaseId,
        of: Parties,
        transaction: Option<TxId>,
    ) -> Result<LeaseView, SettlementError> {
        let lane = self.lane(of, lease).await?;
        let aside = self.micros_of(U256::from(lane.held)).await?;
        let paid = Usd::from_micros(lane.paid.to());
        let (held, refunded) = if lane.open { (aside, Usd::ZERO) } else { (Usd::ZERO, aside) };
        Ok(LeaseView {
            buyer: of.buyer,
            operator: of.operator,
            held,
            paid,
            fee: paid.split(BasisPoints::SERVICE_FEE).0,
            refunded,
            closed: !lane.open,
            transaction,
        })
    }

    /// Sums over the whole escrow, from its token's balance and from every account in it.
    async fn totals(&self) -> Result<Totals, SettlementError> {
        let unsaid = |error| rpc_refusal(error, micros);
        let head = self.rpc().block_number().await.map_err(unsaid)?;
        let first = self.config.first_block;
        let accounts = history::accounts(self.rpc(), self.escrow(), first, head).await;
        let accounts = accounts.map_err(unsaid)?;
        let treasury = self.look(self.escrow(), Escrow::treasuryCall {}).await?;
        let token = self.look(self.escrow(), Escrow::tokenCall {}).await?;
        let (mut free, mut held) = (U256::ZERO, U256::ZERO);
        for account in accounts.into_iter().filter(|account| *account != treasury) {
            let state = self.look(self.escrow(), Escrow::accountOfCall { account }).await?;
            free = free.saturating_add(state.balance.saturating_sub(state.held));
            held = held.saturating_add(state.held);
        }
        let fees = self.look(self.escrow(), Escrow::accountOfCall { account: treasury }).await?;
        let all = self.look(token, Ath::balanceOfCall { account: self.escrow() }).await?;
        Ok(Totals {
            deposited: self.micros_of(all).await?,
            available: self.micros_of(free).await?,
            held: self.micros_of(held).await?,
            treasury: self.micros_of(fees.balance).await?,
        })
    }

    /// The newest transaction that moved a lease's money.
    async fn transaction_of(&self, lease: LeaseId) -> Result<Option<TxId>, SettlementError> {
        let unsaid = |error| rpc_refusal(error, micros);
        let events = vec![
            Escrow::Reserved::SIGNATURE_HASH,
            Escrow::Paid::SIGNATURE_HASH,
            Escrow::LeaseClosed::SIGNATURE_HASH,
            Escrow::Refunded::SIGNATURE_HASH,
        ];
        let filter = welkin_chain::rpc::LogFilter {
            address: self.escrow(),
            topics: vec![events, Vec::new(), Vec::new(), vec![lease_word(lease)]],
            from: self.config.first_block,
            to: None,
        };
        let logs = self.rpc().logs_in_parts(&filter).await.map_err(unsaid)?;
        Ok(logs.last().and_then(|log| log.transaction_hash).map(|hash| TxId::from_bytes(hash.0)))
    }
}

impl Settlement for EvmSettlement {
    fn call(&self, question: Question) -> BoxFuture<'_, Result<Answer, SettlementError>> {
        Box::pin(self.answer(question))
    }

    fn contracts(&self) -> Option<Contracts> {
        let (chain_id, first_block) = (self.config.domain.chain_id, self.config.first_block);
        let deployment = Deployment { chain_id, first_block, contracts: self.config.contracts? };
        let desk = Desk::new(self.rpc().clone(), deployment, address(self.account));
        Some(Contracts::new(desk, self.sender.clone()))
    }
}
