//! Any sequence of transfers and calls gives what revm alone gives.

use alloy_primitives::{Address, Bytes, TxKind, U256};
use proptest::prelude::*;
use revm::context::{CfgEnv, TxEnv};
use revm::database::{CacheDB, EmptyDB};
use revm::primitives::hardfork::SpecId;
use revm::state::AccountInfo;
use revm::{Context, DatabaseRef as _, ExecuteCommitEvm as _, MainBuilder as _, MainContext as _};

use crate::world::{CHAIN_ID, COUNTER, DEPLOYER, Spec, address_of, counter, key, open};

#[derive(Clone, Debug)]
enum Step {
    Transfer { from: u8, to: u8, value: u64 },
    Count { from: u8 },
    Revert { from: u8 },
    Deploy { from: u8 },
}

impl Step {
    fn spec(&self, nonce: u64) -> (u8, Spec) {
        match *self {
            Self::Transfer { from, to, value } => {
                (from, Spec::new(nonce, Address::repeat_byte(to)).value(value))
            }
            Self::Count { from } => (from, Spec::new(nonce, counter())),
            Self::Revert { from } => (from, Spec::new(nonce, counter()).data(vec![7; 32])),
            Self::Deploy { from } => {
                let spec = Spec::new(nonce, Address::ZERO).data(COUNTER);
                (from, Spec { to: TxKind::Create, ..spec })
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let from = 1_u8..5;
    prop_oneof![
        (from.clone(), 20_u8..24, 0_u64..1_000).prop_map(|(from, to, value)| Step::Transfer {
            from,
            to,
            value
        }),
        from.clone().prop_map(|from| Step::Count { from }),
        from.clone().prop_map(|from| Step::Revert { from }),
        from.prop_map(|from| Step::Deploy { from }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn blocks_do_what_revm_does(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let chain = open(&folder.path().join("chain.redb"));
        let mut database = CacheDB::new(EmptyDB::new());
        for seed in 1..=8 {
            let info = AccountInfo { balance: U256::from(10_u64.pow(18)), ..AccountInfo::default() };
            database.insert_account_info(address_of(&key(seed)), info);
        }
        let mut config = CfgEnv::new_with_spec(SpecId::PRAGUE);
        config.chain_id = CHAIN_ID;
        let mut evm = Context::mainnet().with_db(database).with_cfg(config).build_mainnet();
        let environment = |caller, kind, nonce, value, data: Bytes, gas_limit| TxEnv {
            caller, kind, nonce, value, data, gas_limit, chain_id: Some(CHAIN_ID),
            ..TxEnv::default()
        };
        let deploy = environment(
            DEPLOYER, TxKind::Create, 0, U256::ZERO, Bytes::from_static(COUNTER), 30_000_000,
        );
        prop_assert!(evm.transact_commit(deploy).unwrap().is_success());
        let mut nonces = [0_u64; 8];
        let mut raws = Vec::new();
        let mut expected = Vec::new();
        for step in &steps {
            let (from, _) = step.spec(0);
            let nonce = nonces[usize::from(from)];
            nonces[usize::from(from)] += 1;
            let (_, spec) = step.spec(nonce);
            let key = key(from);
            raws.push(spec.sign(&key));
            let transaction = environment(
                address_of(&key), spec.to, nonce, U256::from(spec.value), spec.data, spec.gas,
            );
            let result = evm.transact_commit(transaction).unwrap();
            expected.push((result.is_success(), result.tx_gas_used(), result.logs().len()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut found = Vec::new();
        for raw in &raws {
            let hash = runtime.block_on(chain.send_raw(raw)).unwrap();
            let receipt = chain.receipt(hash).unwrap().unwrap();
            found.push((receipt.status(), receipt.gas_used, receipt.logs().len()));
        }
        prop_assert_eq!(found, expected);
        let database = &evm.ctx.journaled_state.database;
        for address in (1..=4).map(|seed| address_of(&key(seed)))
            .chain((20..24).map(Address::repeat_byte))
        {
            let info = database.basic_ref(address).unwrap().unwrap_or_default();
            prop_assert_eq!(chain.balance(address).unwrap(), info.balance);
            prop_assert_eq!(chain.next_nonce(address).unwrap(), info.nonce);
        }
    }
}
