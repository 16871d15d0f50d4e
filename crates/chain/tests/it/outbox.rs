//! The outbox against a chain that forgets, goes back and is shared with a stranger: what is asked
//! for takes effect, and what must not be repeated takes effect once.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, Bytes, U64};
use proptest::prelude::*;
use welkin_chain::outbox::{
    Event, Fees, Job, NotSent, Outbox, OutboxConfig, Outcome, Step, Waiting,
};
use welkin_chain::rpc::Receipt;
use welkin_types::UnixMillis;

/// A chain with one account. A block holds transactions as `(nonce, job, hash)`.
#[derive(Debug, Default)]
struct Chain {
    blocks: Vec<Vec<(u64, Option<u64>, B256)>>,
    pool: BTreeMap<u64, (Option<u64>, B256, Fees)>,
}

impl Chain {
    fn nonce(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }

    fn mine(&mut self) {
        let mut block = Vec::new();
        let mut next = self.nonce();
        while let Some((job, hash, _)) = self.pool.remove(&next) {
            block.push((next, job, hash));
            next += 1;
        }
        self.blocks.push(block);
    }

    /// The newest block is gone; its transactions wait again or are forgotten.
    fn go_back(&mut self, forgets: bool) {
        for (nonce, job, hash) in self.blocks.pop().unwrap_or_default() {
            if !forgets {
                self.pool.insert(nonce, (job, hash, Fees::default()));
            }
        }
    }

    fn send(&mut self, nonce: u64, job: Option<u64>, fees: Fees) -> Result<B256, (B256, NotSent)> {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&nonce.to_be_bytes());
        hash[8..16].copy_from_slice(&job.unwrap_or(u64::MAX).to_be_bytes());
        hash[16..].copy_from_slice(&fees.max.to_be_bytes());
        let hash = B256::from(hash);
        if nonce < self.nonce() {
            return Err((hash, NotSent::NonceTooLow));
        }
        match self.pool.get(&nonce) {
            Some((_, known, _)) if *known == hash => Err((hash, NotSent::Known)),
            Some((_, _, known)) if fees.max < known.max + known.max / 10 => {
                Err((hash, NotSent::Underpriced))
            }
            _ => {
                self.pool.insert(nonce, (job, hash, fees));
                Ok(hash)
            }
        }
    }

    fn receipt(&self, hashes: &[B256]) -> Option<Receipt> {
        let found = self.blocks.iter().enumerate().find_map(|(number, block)| {
            block.iter().find(|(_, _, hash)| hashes.contains(hash)).map(|tx| (number, tx.2))
        });
        found.map(|(number, hash)| Receipt {
            transaction_hash: hash,
            block_number: U64::from(number),
            block_hash: B256::ZERO,
            status: U64::from(1),
            gas_used: U64::ZERO,
            contract_address: None,
            logs: Vec::new(),
        })
    }

    fn effects(&self) -> Vec<u64> {
        self.blocks.iter().flatten().filter_map(|(_, job, _)| *job).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Chance {
    Submit { is_repeatable: bool },
    Mine,
    GoBack { forgets: bool },
    Stranger,
    Forget,
    Unreachable,
    Wait(u64),
    Gas(u128),
}

fn chances() -> impl Strategy<Value = Vec<Chance>> {
    let one = prop_oneof![
        4 => any::<bool>().prop_map(|is_repeatable| Chance::Submit { is_repeatable }),
        4 => Just(Chance::Mine),
        1 => any::<bool>().prop_map(|forgets| Chance::GoBack { forgets }),
        1 => Just(Chance::Stranger),
        1 => Just(Chance::Forget),
        2 => Just(Chance::Unreachable),
        4 => (1_u64..40_000).prop_map(Chance::Wait),
        1 => (0_u128..200).prop_map(Chance::Gas),
    ];
    prop::collection::vec(one, 1..80)
}

struct World {
    outbox: Outbox,
    chain: Chain,
    now: UnixMillis,
    gas: u128,
    repeatable: BTreeMap<u64, bool>,
    done: BTreeMap<u64, Outcome>,
}

const DEPTH: u64 = 2;

impl World {
    fn new() -> Self {
        let config = OutboxConfig { depth: DEPTH, fee_max: 100, ..OutboxConfig::default() };
        Self {
            outbox: Outbox::new(config, Address::ZERO),
            chain: Chain::default(),
            now: UnixMillis(1_000_000),
            gas: 10,
            repeatable: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    /// Carries out what an event leads to; `is_reached` as long as the node is.
    fn event(&mut self, event: Event, is_reached: bool) {
        let mut steps = self.outbox.handle(self.now, event);
        for _ in 0..10_000 {
            if steps.is_empty() {
                return;
            }
            let event = match steps.remove(0) {
                Step::Done { id, outcome } => {
                    assert!(self.done.insert(id, outcome).is_none(), "{id} was answered twice");
                    continue;
                }
                _ if !is_reached => Event::Unreachable,
                Step::AskState => Event::State {
                    nonce: self.chain.nonce(),
                    head: (self.chain.blocks.len() as u64).saturating_sub(1),
                    fees: Fees { max: self.gas, tip: 1 },
                },
                Step::Look { nonce, hashes } => {
                    Event::Looked { nonce, receipt: self.chain.receipt(&hashes) }
                }
                Step::Send { nonce, job, fees } => {
                    assert!(fees.max <= 100, "more than may be paid: {fees:?}");
                    // One that only fills a number is nobody's job.
                    let id = (job.id != u64::MAX).then_some(job.id);
                    match self.chain.send(nonce, id, fees) {
                        Ok(hash) => Event::Sent { nonce, hash },
                        Err((hash, why)) => Event::NotSent { nonce, hash, why },
                    }
                }
            };
            steps.extend(self.outbox.handle(self.now, event));
        }
        assert!(steps.is_empty(), "it goes round in circles");
    }

    fn chance(&mut self, chance: Chance) {
        match chance {
            Chance::Submit { is_repeatable } => {
                let id = self.repeatable.len() as u64;
                self.repeatable.insert(id, is_repeatable);
                let job = Job { id, to: None, input: Bytes::new(), gas: 1, is_repeatable };
                self.event(Event::Submit(job), true);
            }
            Chance::Mine => self.chain.mine(),
            // Never deeper than what is waited for.
            Chance::GoBack { forgets } => self.chain.go_back(forgets),
            Chance::Stranger => {
                let nonce = self.chain.nonce();
                let _ = self.chain.send(nonce, None, Fees { max: 100, tip: 1 });
            }
            Chance::Forget => self.chain.pool.clear(),
            Chance::Unreachable => self.event(Event::Tick, false),
            Chance::Wait(millis) => {
                self.now = UnixMillis(self.now.0 + millis);
                self.event(Event::Tick, true);
            }
            Chance::Gas(price) => self.gas = price,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_job_takes_effect_and_what_must_not_be_repeated_once(chances in chances()) {
        let mut world = World::new();
        for chance in chances {
            // A chain goes back by less than what is waited for: one block at a time, then on.
            let goes_back = matches!(chance, Chance::GoBack { .. });
            world.chance(chance);
            if goes_back {
                world.chain.mine();
            }
        }
        world.gas = 10;
        for _ in 0..400 {
            world.chance(Chance::Wait(5_000));
            world.chain.mine();
        }
        prop_assert_eq!(world.outbox.waiting_for(), Waiting::Idle);
        let effects = world.chain.effects();
        let distinct: BTreeSet<u64> = effects.iter().copied().collect();
        for (id, is_repeatable) in &world.repeatable {
            let count = effects.iter().filter(|effect| *effect == id).count();
            match world.done.get(id) {
                Some(Outcome::Included(_)) => {
                    prop_assert!(distinct.contains(id), "{} was said to be done", id);
                    prop_assert!(*is_repeatable || count == 1, "{} took effect {} times", id, count);
                }
                Some(Outcome::Replaced) => {
                    prop_assert!(!is_repeatable);
                    prop_assert!(count <= 1);
                }
                other => prop_assert!(false, "{}: {:?}", id, other),
            }
        }
    }
}

#[test]
fn nothing_is_sent_while_gas_is_too_dear() {
    let mut world = World::new();
    world.gas = 101;
    world.chance(Chance::Submit { is_repeatable: true });
    world.chance(Chance::Wait(60_000));
    assert_eq!(world.outbox.waiting_for(), Waiting::Gas { price: 101, limit: 100 });
    assert!(world.chain.pool.is_empty());
    world.gas = 20;
    world.chance(Chance::Wait(1_000));
    assert_eq!(world.chain.pool.len(), 1);
    assert_eq!(world.outbox.waiting_for(), Waiting::Block);
}

#[test]
fn what_no_block_takes_offers_more_up_to_the_limit() {
    let mut world = World::new();
    world.chance(Chance::Submit { is_repeatable: false });
    let mut offers = vec![world.chain.pool[&0].2.max];
    for _ in 0..60 {
        world.chance(Chance::Wait(31_000));
        offers.push(world.chain.pool[&0].2.max);
    }
    offers.dedup();
    assert!(offers.len() > 5, "{offers:?}");
    assert!(offers.iter().all(|offer| *offer <= 100), "{offers:?}");
    world.chain.mine();
    world.chain.mine();
    world.chain.mine();
    world.chance(Chance::Wait(1_000));
    assert!(matches!(world.done.get(&0), Some(Outcome::Included(_))), "{:?}", world.done);
}

#[test]
fn an_unreachable_node_is_said_and_tried_again() {
    let mut world = World::new();
    let job = Job { id: 0, to: None, input: Bytes::new(), gas: 1, is_repeatable: true };
    world.event(Event::Submit(job), false);
    assert_eq!(world.outbox.waiting_for(), Waiting::Node);
    for _ in 0..3_600 {
        world.now = UnixMillis(world.now.0 + 1_000);
        world.event(Event::Tick, false);
    }
    assert!(world.done.is_empty());
    for _ in 0..5 {
        world.chance(Chance::Wait(1_000));
        world.chain.mine();
    }
    assert!(matches!(world.done.get(&0), Some(Outcome::Included(_))), "{:?}", world.done);
}
