//! What a buyer (or an operator) signs: delegations, orders, vouchers, acknowledgements.

use serde::{Deserialize, Serialize};
use welkin_types::{AccountId, ContainerId, LeaseId, NodeId, Price, UnixMillis, Usd};

use crate::eip712::{Domain, Eip712, Words};
use crate::keys::{AccountKey, AccountSignature, KeyError};

/// A message with its account's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedByAccount<T> {
    /// What is signed.
    pub message: T,
    /// By whom: recovered from this.
    pub signature: AccountSignature,
}

impl<T: Eip712> SignedByAccount<T> {
    /// Signs a message.
    ///
    /// # Errors
    ///
    /// [`KeyError`] where the curve refuses.
    pub fn sign(domain: &Domain, key: &AccountKey, message: T) -> Result<Self, KeyError> {
        let signature = key.sign(&message.digest(domain))?;
        Ok(Self { message, signature })
    }

    /// The account that signed.
    ///
    /// # Errors
    ///
    /// [`KeyError::Signature`] if no account did.
    pub fn signer(&self, domain: &Domain) -> Result<AccountId, KeyError> {
        self.signature.recover(&self.message.digest(domain))
    }
}

/// "This node acts for me until then."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// Who may act.
    pub node: NodeId,
    /// Until when.
    pub expires: UnixMillis,
}

impl Eip712 for Delegation {
    fn hash_struct(&self) -> [u8; 32] {
        let mut words = Words::of("Delegation(bytes32 node,uint64 expires)");
        words.word(*self.node.as_bytes());
        words.number(u128::from(self.expires.0));
        words.hash()
    }
}

impl SignedByAccount<Delegation> {
    /// The account for which `node` acts at `now`, if this says so.
    ///
    /// # Errors
    ///
    /// [`KeyError::Signature`] if it is for another node, expired or not signed.
    pub fn account(
        &self,
        domain: &Domain,
        node: NodeId,
        now: UnixMillis,
    ) -> Result<AccountId, KeyError> {
        if self.message.node != node || self.message.expires < now {
            return Err(KeyError::Signature);
        }
        self.signer(domain)
    }
}

/// A buyer's order of one container at a locked price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The lease it makes.
    pub lease: LeaseId,
    /// Who pays.
    pub buyer: AccountId,
    /// Who is paid.
    pub operator: AccountId,
    /// The node that runs it.
    pub host: NodeId,
    /// The container.
    pub container: ContainerId,
    /// The price, locked.
    pub price: Price,
    /// The most that the lease may cost in all.
    pub budget: Usd,
    /// SHA-256 of the task as it was sent.
    #[serde(with = "crate::hexed")]
    pub task_sha256: [u8; 32],
    /// When it was signed.
    pub issued: UnixMillis,
    /// After this the host must not accept it.
    pub expires: UnixMillis,
}

impl Eip712 for Order {
    fn hash_struct(&self) -> [u8; 32] {
        let mut words = Words::of(
            "Order(bytes16 lease,address buyer,address operator,bytes32 host,bytes16 container,\
             uint256 pricePerHour,uint256 budget,bytes32 task,uint64 issued,uint64 expires)",
        );
        words.bytes16(self.lease.as_bytes());
        words.address(self.buyer);
        words.address(self.operator);
        words.word(*self.host.as_bytes());
        words.bytes16(self.container.as_bytes());
        words.number(u128::from(self.price.hour().micros()));
        words.number(u128::from(self.budget.micros()));
        words.word(self.task_sha256);
        words.number(u128::from(self.issued.0));
        words.number(u128::from(self.expires.0));
        words.hash()
    }
}

/// A buyer's cumulative promise: "for this lease I owe this much in all".
///
/// A later voucher replaces an earlier one; only the difference is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voucher {
    /// Which lease.
    pub lease: LeaseId,
    /// Who is paid.
    pub operator: AccountId,
    /// The total owed since the lease began.
    pub amount: Usd,
    /// The total of seconds that it pays for.
    pub seconds: u64,
}

impl Eip712 for Voucher {
    fn hash_struct(&self) -> [u8; 32] {
        let mut words =
            Words::of("Voucher(bytes16 lease,address operator,uint256 amount,uint64 secondsUsed)");
        words.bytes16(self.lease.as_bytes());
        words.address(self.operator);
        words.number(u128::from(self.amount.micros()));
        words.number(u128::from(self.seconds));
        words.hash()
    }
}

/// A buyer's signature under a host's receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptAck {
    /// Which lease.
    pub lease: LeaseId,
    /// SHA-256 of the receipt as the host signed it.
    #[serde(with = "crate::hexed")]
    pub receipt_sha256: [u8; 32],
}

impl Eip712 for ReceiptAck {
    fn hash_struct(&self) -> [u8; 32] {
        let mut words = Words::of("ReceiptAck(bytes16 lease,bytes32 receipt)");
        words.bytes16(self.lease.as_bytes());
        words.word(self.receipt_sha256);
        words.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voucher() -> Voucher {
        Voucher {
            lease: LeaseId::from_bytes([1; 16]),
            operator: AccountId::from_bytes([2; 20]),
            amount: Usd::from_micros(1_000),
            seconds: 10,
        }
    }

    #[test]
    fn a_voucher_is_its_signers_and_on_its_chain_only() {
        let key = AccountKey::from_secret(&[3; 32]).unwrap();
        let signed = SignedByAccount::sign(&Domain::LOCAL, &key, voucher()).unwrap();
        assert_eq!(signed.signer(&Domain::LOCAL), Ok(key.id()));
        let elsewhere = Domain { chain_id: 1, ..Domain::LOCAL };
        assert_ne!(signed.signer(&elsewhere), Ok(key.id()));
        let mut raised = signed;
        raised.message.amount = Usd::from_micros(2_000);
        assert_ne!(raised.signer(&Domain::LOCAL), Ok(key.id()));
    }

    #[test]
    fn a_delegation_is_for_one_node_and_ends() {
        let key = AccountKey::from_secret(&[3; 32]).unwrap();
        let node = NodeId::from_bytes([4; 32]);
        let delegation = Delegation { node, expires: UnixMillis(100) };
        let signed = SignedByAccount::sign(&Domain::LOCAL, &key, delegation).unwrap();
        assert_eq!(signed.account(&Domain::LOCAL, node, UnixMillis(100)), Ok(key.id()));
        assert!(signed.account(&Domain::LOCAL, node, UnixMillis(101)).is_err());
        let other = NodeId::from_bytes([5; 32]);
        assert!(signed.account(&Domain::LOCAL, other, UnixMillis(1)).is_err());
    }
}
