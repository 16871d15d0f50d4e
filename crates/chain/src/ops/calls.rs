//! Calls as people write them: `escrow.setFee(1500)`, read and shown.

use alloy_dyn_abi::{DynSolType, DynSolValue};
use alloy_primitives::{Address, Bytes, hex, keccak256};

use crate::contracts::{
    AccessManager, Ath, CheckerLicense, Emissions, Escrow, LocalFaucet, MedianOracle, Registry,
    Rewards, Slashing, Staking, Treasury, WelkinGovernor,
};
use crate::deployment::{Contract, Places};

/// Why a text is no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Its form is wrong.
    #[error("`{0}` is no call: write it as `escrow.setFee(1500)`")]
    Form(String),
    /// There is no such contract.
    #[error("there is no contract `{0}`: they are {1}")]
    Contract(String, String),
    /// The contract has no such function.
    #[error("the contract `{contract}` has no function `{function}`{nearest}")]
    Function {
        /// Which contract.
        contract: &'static str,
        /// What was asked for.
        function: String,
        /// What it may have meant, with words around it.
        nearest: String,
    },
    /// The arguments are not the function's.
    #[error("`{arguments}` are no arguments of `{signature}`")]
    Arguments {
        /// What was given.
        arguments: String,
        /// What the function takes.
        signature: &'static str,
        /// What does not fit.
        #[source]
        source: ArgumentError,
    },
}

/// Where arguments do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ArgumentError(String);

/// The functions of a contract: `setFee(uint16)`.
pub const fn functions(contract: Contract) -> &'static [&'static str] {
    match contract {
        Contract::Authority => AccessManager::AccessManagerCalls::SIGNATURES,
        Contract::Ath => Ath::AthCalls::SIGNATURES,
        Contract::Oracle => MedianOracle::MedianOracleCalls::SIGNATURES,
        Contract::Treasury => Treasury::TreasuryCalls::SIGNATURES,
        Contract::Emissions => Emissions::EmissionsCalls::SIGNATURES,
        Contract::Licences => CheckerLicense::CheckerLicenseCalls::SIGNATURES,
        Contract::Registry => Registry::RegistryCalls::SIGNATURES,
        Contract::Staking => Staking::StakingCalls::SIGNATURES,
        Contract::Escrow => Escrow::EscrowCalls::SIGNATURES,
        Contract::Rewards => Rewards::RewardsCalls::SIGNATURES,
        Contract::Slashing => Slashing::SlashingCalls::SIGNATURES,
        Contract::Governor => WelkinGovernor::WelkinGovernorCalls::SIGNATURES,
        Contract::Faucet => LocalFaucet::LocalFaucetCalls::SIGNATURES,
    }
}

fn name(signature: &str) -> &str {
    signature.split('(').next().unwrap_or_default()
}

/// Reads a call.
///
/// # Errors
///
/// [`CallError`] with what does not fit.
pub fn parse(text: &str) -> Result<(Contract, Bytes), CallError> {
    let text = text.trim();
    let form = || CallError::Form(text.chars().take(100).collect());
    let (contract, rest) = text.split_once('.').ok_or_else(form)?;
    let (function, arguments) = rest.split_once('(').ok_or_else(form)?;
    let arguments = arguments.strip_suffix(')').ok_or_else(form)?;
    let Some(contract) = Contract::ALL.into_iter().find(|known| known.name() == contract) else {
        let all: Vec<_> = Contract::ALL.into_iter().map(Contract::name).collect();
        return Err(CallError::Contract(contract.to_owned(), all.join(", ")));
    };
    let all = functions(contract);
    let named: Vec<_> = all.iter().filter(|known| name(known) == function).collect();
    if named.is_empty() {
        let mut near = all.iter().map(|known| name(known));
        let near = near.find(|known| known.eq_ignore_ascii_case(function));
        let nearest = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let (contract, function) = (contract.name(), function.to_owned());
        return Err(CallError::Function { contract, function, nearest });
    }
    // Few functions share a name; what fits one of them is meant.
    let mut last = None;
    for signature in named {
        match encode(signature, arguments) {
            Ok(input) => return Ok((contract, input)),
            Err(source) => {
                let arguments = arguments.chars().take(200).collect();
                last = Some(CallError::Arguments { arguments, signature, source });
            }
        }
    }
    Err(last.unwrap_or_else(form))
}

fn encode(signature: &str, arguments: &str) -> Result<Bytes, ArgumentError> {
    let mut input = keccak256(signature)[..4].to_vec();
    let types = &signature[name(signature).len()..];
    if types == "()" {
        if !arguments.trim().is_empty() {
            return Err(ArgumentError("it takes none".to_owned()));
        }
        return Ok(input.into());
    }
    let failed = |error: alloy_dyn_abi::Error| ArgumentError(error.to_string());
    let kind = DynSolType::parse(types).map_err(failed)?;
    let value = kind.coerce_str(&format!("({arguments})")).map_err(failed)?;
    input.extend(value.abi_encode_params());
    Ok(input.into())
}

/// Shows a call; as hexadecimal digits where it is none of the network's contracts.
pub fn show(places: &Places, to: Address, input: &[u8]) -> String {
    let raw = || format!("{to} 0x{}", hex::encode(input));
    let Some((contract, _)) = places.each().find(|(_, place)| *place == to) else { return raw() };
    function(contract, input)
        .and_then(|signature| {
            let arguments = decode(signature, input.get(4..)?)?;
            Some(format!("{}.{}({arguments})", contract.name(), name(signature)))
        })
        .unwrap_or_else(raw)
}

/// Which function a call's data are for.
pub fn function(contract: Contract, input: &[u8]) -> Option<&'static str> {
    let selector = input.first_chunk::<4>()?;
    functions(contract).iter().find(|signature| keccak256(signature)[..4] == selector[..]).copied()
}

fn decode(signature: &str, data: &[u8]) -> Option<String> {
    let types = &signature[name(signature).len()..];
    if types == "()" {
        return data.is_empty().then(String::new);
    }
    let value = DynSolType::parse(types).ok()?.abi_decode_params(data).ok()?;
    let fields = value.as_fixed_seq()?;
    Some(fields.iter().map(word).collect::<Vec<_>>().join(","))
}

fn word(value: &DynSolValue) -> String {
    let list = |open: char, values: &[DynSolValue], close: char| {
        let words: Vec<_> = values.iter().map(word).collect();
        format!("{open}{}{close}", words.join(","))
    };
    match value {
        DynSolValue::Bool(value) => value.to_string(),
        DynSolValue::Int(value, _) => value.to_string(),
        DynSolValue::Uint(value, _) => value.to_string(),
        DynSolValue::Address(value) => value.to_string(),
        DynSolValue::FixedBytes(value, size) => hex::encode_prefixed(&value[..*size]),
        DynSolValue::Bytes(value) => hex::encode_prefixed(value),
        DynSolValue::String(value) => format!("{value:?}"),
        DynSolValue::Array(values) | DynSolValue::FixedArray(values) => list('[', values, ']'),
        DynSolValue::Tuple(values) | DynSolValue::CustomStruct { tuple: values, .. } => {
            list('(', values, ')')
        }
        DynSolValue::Function(value) => hex::encode_prefixed(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calls_are_read_and_shown_alike() {
        let places = Places::local();
        for text in [
            "escrow.setFee(1500)",
            "escrow.unpause()",
            "staking.setClass(2,(1000,0,false))",
            "rewards.setCommittee([0x1111111111111111111111111111111111111111],1)",
            "licences.addTier((5000000,100,0,5,0,0x000000000000000000000000000000000000000000000000\
             0000000000000000))",
            "authority.grantRole(7,0x1111111111111111111111111111111111111111,0)",
        ] {
            let (contract, input) = parse(text).unwrap();
            assert_eq!(show(&places, places.of(contract), &input), text);
        }
        let stranger = Address::repeat_byte(9);
        assert_eq!(show(&places, stranger, &[1, 2]), format!("{stranger} 0x0102"));
        assert!(show(&places, places.escrow, &[1, 2, 3, 4]).ends_with("0x01020304"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        for (text, part) in [
            ("setFee(1)", "write it as"),
            ("escrow.setFee", "write it as"),
            ("nowhere.setFee(1)", "no contract `nowhere`"),
            ("escrow.setfee(1)", "did you mean `setFee`?"),
            ("escrow.setFee(70000)", "setFee(uint16)"),
            ("escrow.setFee(1,2)", "setFee(uint16)"),
            ("escrow.setFee()", "setFee(uint16)"),
            ("escrow.unpause(1)", "unpause()"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn every_function_is_known_by_its_selector() {
        for contract in Contract::ALL {
            for signature in functions(contract) {
                let selector = &keccak256(signature)[..4];
                assert_eq!(function(contract, selector), Some(*signature));
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_or_stands_on_a_chain_panics(
            text in ".{0,120}",
            input in proptest::collection::vec(any::<u8>(), 0..400),
            known in 0..13_usize,
        ) {
            let _ = parse(&text);
            for function in functions(Contract::ALL[known]) {
                let name = name(function);
                let _ = parse(&format!("{}.{name}({text})", Contract::ALL[known].name()));
                let input = [&keccak256(function)[..4], &input].concat();
                let places = Places::local();
                let _ = show(&places, places.of(Contract::ALL[known]), &input);
            }
        }
    }
}
