//! What events tell of accounts and leases, read block by block and kept.
//!
//! The contract keeps what it needs to pay; what an account has put in and earned in all, and who
//! the parties of a lease are, stands in its events. They are derived from state, never the other
//! way round: a reader that missed or repeated an event shows a wrong sum and moves no money.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolEvent as _;
use welkin_chain::contracts::{Escrow, MedianOracle};
use welkin_chain::rpc::{Log, LogFilter, Rpc, RpcError};
use welkin_types::{AccountId, BasisPoints, LeaseId, Usd};

use super::trail::Trail;

/// The most accounts whose sums are kept; the others are read again when asked for.
const ACCOUNTS_MAX: usize = 64;
/// The most leases whose parties are kept.
const LEASES_MAX: usize = 65_536;

/// How often a chain that changes meanwhile is read before giving up.
const READS_MAX: usize = 8;

/// One account's sums up to a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Put in, in wei.
    pub(super) deposited: U256,
    /// Earned by leases after fees.
    pub(super) earned: Usd,
}

/// Who is who in a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parties {
    pub(super) buyer: AccountId,
    pub(super) operator: AccountId,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct History {
    sums: BTreeMap<AccountId, Trail<Sums>>,
    leases: BTreeMap<LeaseId, Parties>,
    order: std::collections::VecDeque<LeaseId>,
    /// The last price of ATH that was seen.
    pub(super) price: Option<U256>,
}

impl History {
    pub(super) fn parties(&self, lease: LeaseId) -> Option<Parties> {
        self.leases.get(&lease).copied()
    }

    pub(super) fn remember(&mut self, lease: LeaseId, parties: Parties) {
        if self.leases.insert(lease, parties).is_none() {
            self.order.push_back(lease);
        }
        while self.order.len() > LEASES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.leases.remove(&oldest);
            }
        }
    }

    /// Forgets a lease's parties: the chain has no such lease any more.
    pub(super) fn forget(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_some() {
            self.order.retain(|known| *known != lease);
        }
    }

    /// How far an account's sums were read.
    pub(super) fn sums(&self, account: AccountId) -> Trail<Sums> {
        self.sums.get(&account).cloned().unwrap_or_default()
    }

    pub(super) fn keep(&mut self, account: AccountId, sums: Trail<Sums>) {
        if self.sums.len() >= ACCOUNTS_MAX && !self.sums.contains_key(&account) {
            self.sums.pop_first();
        }
        self.sums.insert(account, sums);
    }
}

pub(super) fn address_word(account: AccountId) -> B256 {
    welkin_chain::address(account).into_word()
}

pub(super) fn lease_word(lease: LeaseId) -> B256 {
    let mut word = B256::ZERO;
    word[..16].copy_from_slice(lease.as_bytes());
    word
}

/// Micro-dollars as the contracts count them.
pub(super) fn micros(amount: U256) -> Usd {
    Usd::from_micros(u64::try_from(amount).unwrap_or(u64::MAX).min(Usd::MAX.micros()))
}

pub(crate) fn account(address: Address) -> AccountId {
    AccountId::from_bytes(address.0.0)
}

/// Reads an account's sums on to the newest block, and again from where the chain parted if it has
/// gone back. `first` is the first block in which there is anything.
pub(super) async fn read_on(
    rpc: &Rpc,
    escrow: Address,
    of: AccountId,
    trail: &mut Trail<Sums>,
    first: u64,
) -> Result<Sums, RpcError> {
    for _ in 0..READS_MAX {
        let known = trail.roll_back(rpc).await?;
        let (next, sums) = known.map_or((first, Sums::default()), |(at, sums)| (at + 1, sums));
        let head = rpc.head().await?;
        let number = head.number.to::<u64>();
        if number < next {
            return Ok(sums);
        }
        let sums = add(rpc, escrow, of, sums, next..=number).await?;
        // What was read is of one chain if its last block is still the same.
        if rpc.head_at(number).await?.is_some_and(|block| block.hash == head.hash) {
            trail.mark(number, head.hash, sums);
            return Ok(sums);
        }
    }
    Err(RpcError::Confused("the chain changes faster than it can be read".to_owned()))
}

/// Adds what happened in these blocks to an account's sums.
async fn add(
    rpc: &Rpc,
    escrow: Address,
    of: AccountId,
    mut sums: Sums,
    blocks: RangeInclusive<u64>,
) -> Result<Sums, RpcError> {
    let filter = |event: B256, place: usize| {
        let mut topics = vec![Vec::new(); place + 1];
        topics[0] = vec![event];
        topics[place] = vec![address_word(of)];
        LogFilter { address: escrow, topics, from: *blocks.start(), to: Some(*blocks.end()) }
    };
    for log in rpc.logs_in_parts(&filter(Escrow::Deposited::SIGNATURE_HASH, 1)).await? {
        if let Some(event) = read::<Escrow::Deposited>(&log) {
            sums.deposited = sums.deposited.saturating_add(event.amount);
        }
    }
    let mut earned = sums.earned.micros();
    for log in rpc.logs_in_parts(&filter(Escrow::Paid::SIGNATURE_HASH, 2)).await? {
        if let Some(event) = read::<Escrow::Paid>(&log) {
            let part = |total: U256| micros(total).split(BasisPoints::SERVICE_FEE).1;
            let before = part(event.total.saturating_sub(event.micros));
            earned = earned.saturating_add(part(event.total).saturating_sub(before).micros());
        }
    }
    sums.earned = Usd::from_micros(earned);
    Ok(sums)
}

/// The parties of a lease by its reservation: the newest in which `own` is one of them, as ids are
/// made by buyers and others may have taken the same; else the newest of all.
pub(super) async fn find_parties(
    rpc: &Rpc,
    escrow: Address,
    lease: LeaseId,
    own: AccountId,
    from: u64,
) -> Result<Option<Parties>, RpcError> {
    let topics = vec![
        vec![Escrow::Reserved::SIGNATURE_HASH],
        Vec::new(),
        Vec::new(),
        vec![lease_word(lease)],
    ];
    let filter = LogFilter { address: escrow, topics, from, to: None };
    let logs = rpc.logs_in_parts(&filter).await?;
    let newest = logs
        .iter()
        .rev()
        .filter_map(read::<Escrow::Reserved>)
        .map(|event| Parties { buyer: account(event.buyer), operator: account(event.operator) });
    let all: Vec<_> = newest.collect();
    let is_own = |parties: &&Parties| parties.buyer == own || parties.operator == own;
    Ok(all.iter().find(is_own).or_else(|| all.first()).copied())
}

/// Every account that ever had money in the escrow.
pub(super) async fn accounts(
    rpc: &Rpc,
    escrow: Address,
    from: u64,
    head: u64,
) -> Result<BTreeSet<Address>, RpcError> {
    let events = vec![vec![Escrow::Deposited::SIGNATURE_HASH, Escrow::Paid::SIGNATURE_HASH]];
    let filter = LogFilter { address: escrow, topics: events, from, to: Some(head) };
    let mut accounts = BTreeSet::new();
    for log in rpc.logs_in_parts(&filter).await? {
        if let Some(event) = read::<Escrow::Deposited>(&log) {
            accounts.insert(event.account);
        } else if let Some(event) = read::<Escrow::Paid>(&log) {
            accounts.extend([event.buyer, event.operator]);
        }
    }
    Ok(accounts)
}

/// The price that an oracle set last, found from the newest block backwards.
pub(super) async fn last_price(
    rpc: &Rpc,
    oracle: Address,
    first: u64,
) -> Result<Option<U256>, RpcError> {
    let mut end = rpc.block_number().await?;
    let mut blocks = 1_000_u64;
    loop {
        let from = (end + 1).saturating_sub(blocks).max(first);
        let topics = vec![vec![MedianOracle::PriceSet::SIGNATURE_HASH]];
        let filter = LogFilter { address: oracle, topics, from, to: Some(end) };
        let logs = rpc.logs_in_parts(&filter).await?;
        if let Some(set) = logs.iter().rev().find_map(read::<MedianOracle::PriceSet>) {
            return Ok(Some(set.price));
        }
        if from <= first {
            return Ok(None);
        }
        (end, blocks) = (from - 1, blocks.saturating_mul(4));
    }
}

pub(super) fn read<E: alloy_sol_types::SolEvent>(log: &Log) -> Option<E> {
    E::decode_raw_log(log.topics.iter().copied(), &log.data).ok()
}
