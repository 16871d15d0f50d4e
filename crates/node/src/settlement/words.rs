//! Ids, signatures and promises in the words of the contracts.

use alloy_primitives::{B256, Bytes, FixedBytes, U256};
use welkin_chain::address;
use welkin_chain::contracts::IEscrow;
use welkin_proto::{AccountSignature, Order, Voucher};
use welkin_types::LeaseId;

pub(super) fn lease_id(lease: LeaseId) -> FixedBytes<16> {
    FixedBytes::from(*lease.as_bytes())
}

pub(super) fn signature(signature: &AccountSignature) -> Bytes {
    let mut bytes = Vec::with_capacity(65);
    bytes.extend_from_slice(&signature.r);
    bytes.extend_from_slice(&signature.s);
    bytes.push(signature.v);
    bytes.into()
}

pub(super) fn order_of(order: &Order) -> IEscrow::Order {
    IEscrow::Order {
        lease: lease_id(order.lease),
        buyer: address(order.buyer),
        operator: address(order.operator),
        host: B256::from(*order.host.as_bytes()),
        container: FixedBytes::from(*order.container.as_bytes()),
        pricePerHour: U256::from(order.price.hour().micros()),
        budget: U256::from(order.budget.micros()),
        task: B256::from(order.task_sha256),
        issued: order.issued.0,
        expires: order.expires.0,
    }
}

pub(super) fn voucher_of(voucher: &Voucher) -> IEscrow::Voucher {
    IEscrow::Voucher {
        lease: lease_id(voucher.lease),
        operator: address(voucher.operator),
        amount: U256::from(voucher.amount.micros()),
        secondsUsed: voucher.seconds,
    }
}
