// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {EscrowBase} from "./EscrowBase.sol";
import {Wallet} from "./Mocks.sol";

/// A wallet that says no with as many bytes as its gas allows.
contract LoudWallet {
    fallback(bytes calldata) external returns (bytes memory) {
        return new bytes(220_000);
    }
}

/// What an audit of the escrow found, each as it was exploited.
contract AuditEscrowTest is EscrowBase {
    function _refund(uint64 micros) internal {
        vm.prank(operator);
        escrow.refund(buyer, operator, lease, micros, "");
    }

    /// Buyer and operator, together, pay at a low fee and take back at a higher one.
    function testFuzz_a_changed_fee_is_no_option_on_the_treasury(uint16 before, uint16 later, uint64 micros)
        public
    {
        escrow.setFee(uint16(bound(before, 0, 3_000)));
        micros = uint64(bound(micros, 1, 10_000_000));
        open(lease, 10_000_000, 1_000_000);
        uint256 money = balanceOf(buyer);
        pay(lease, micros, 0);
        uint256 got = balanceOf(operator);
        escrow.deposit(treasury, 1_000e18);
        escrow.deposit(operator, 1_000e18);
        escrow.setFee(uint16(bound(later, 0, 3_000)));
        _refund(micros);
        vm.assertGe(balanceOf(treasury), 1_000e18, "others' fees");
        vm.assertGe(balanceOf(operator) + got, 1_000e18 + got, "what the operator never got");
        vm.assertEq(balanceOf(buyer), money);
    }

    /// Payments at several fees: the treasury gives at most the lowest of them.
    function testFuzz_fees_that_change_during_a_lease_are_no_option(uint16[3] calldata fees, uint64 micros)
        public
    {
        open(lease, 10_000_000, 1_000_000);
        escrow.deposit(operator, 1_000e18);
        escrow.deposit(treasury, 1_000e18);
        for (uint256 i; i < 3; ++i) {
            escrow.setFee(uint16(bound(fees[i], 0, 3_000)));
            pay(lease, 1_000_003 * (i + 1), 0);
        }
        escrow.setFee(3_000);
        _refund(uint64(bound(micros, 0, 4_000_000)));
        vm.assertGe(balanceOf(treasury) + 3 * MICRO, 1_000e18); // a micro for each fee
    }

    /// As many contract wallets as are in a batch turn hostile; the others are paid.
    function test_many_loud_wallets_do_not_stop_a_batch() public {
        uint256 n = 12;
        address loud = address(new LoudWallet());
        IEscrow.Redemption[] memory batch = new IEscrow.Redemption[](n + 1);
        IEscrow.Voucher memory v = voucher(lease, 300_000);
        for (uint256 i; i < n; ++i) {
            address wallet = address(new Wallet(buyer));
            escrow.deposit(wallet, 100e18);
            IEscrow.Order memory o = order(lease, 1_000_000);
            o.buyer = wallet;
            bytes memory s = sig(BUYER, escrow.orderHash(o));
            vm.prank(operator);
            escrow.reserve(o, s, 500_000);
            vm.etch(wallet, loud.code);
            batch[i] = IEscrow.Redemption(wallet, v, sig(OPERATOR, escrow.voucherHash(v)), 0);
        }
        open(lease, 1_000_000, 500_000);
        batch[n] = IEscrow.Redemption(buyer, v, sig(BUYER, escrow.voucherHash(v)), 0);
        vm.prank(operator);
        escrow.redeemBatch{gas: 5_000_000}(batch);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).paid, 300_000);
    }

    /// The host goes on working while there is no price; the buyer must not leave with its money
    /// before the host could redeem.
    function test_an_outage_of_the_price_does_not_make_vouchers_worthless() public {
        open(lease, 10_000_000, 10_000_000);
        IEscrow.Voucher memory v = voucher(lease, 9_000_000);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        oracle.setStale(true);
        vm.warp(NOW + 60 + 2 days);
        vm.prank(buyer);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.NotYet.selector, NOW + 60 + 30 days));
        escrow.release(operator, lease);
        oracle.setStale(false);
        vm.prank(operator);
        escrow.redeem(buyer, v, s, 0);
        vm.assertEq(balanceOf(operator), 7_200_000 * MICRO);
    }

    /// A price that never comes back keeps nobody's money.
    function test_without_a_price_a_buyer_is_released_in_the_end() public {
        open(lease, 10_000_000, 10_000_000);
        oracle.setStale(true);
        vm.warp(NOW + 60 + 30 days);
        vm.prank(buyer);
        escrow.release(operator, lease);
        vm.assertEq(heldOf(buyer), 0);
    }

    /// Nor does an oracle that is gone altogether.
    function test_without_an_oracle_a_buyer_is_released_in_the_end() public {
        open(lease, 10_000_000, 10_000_000);
        vm.etch(address(oracle), "");
        vm.warp(NOW + 60 + 30 days);
        vm.prank(buyer);
        escrow.release(operator, lease);
        vm.assertEq(heldOf(buyer), 0);
    }

    /// The operator redeems one of many vouchers a day, and all that is aside stays there as long.
    function test_vouchers_one_by_one_do_not_keep_what_is_aside() public {
        open(lease, 10_000_000, 10_000_000);
        vm.warp(NOW + 60);
        for (uint256 i = 1; i < 10; ++i) {
            vm.warp(block.timestamp + 1 days - 1);
            pay(lease, i, 10_000_000);
            vm.prank(buyer);
            vm.expectPartialRevert(IEscrow.NotYet.selector);
            escrow.release(operator, lease);
        }
        vm.prank(buyer);
        escrow.settle(operator, lease, 1_000);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).paid, 1_000);
        vm.assertEq(balanceOf(operator) + balanceOf(treasury), 1_000 * MICRO);
        vm.warp(block.timestamp + 1 days - 1);
        pay(lease, 10, 0);
        vm.warp(block.timestamp + 1);
        vm.prank(buyer);
        escrow.release(operator, lease);
        vm.assertEq(heldOf(buyer), 0);
    }

    /// Nobody settles for another.
    function test_only_the_buyer_settles_without_a_voucher() public {
        open(lease, 10_000_000, 1_000_000);
        vm.prank(operator);
        vm.expectRevert(IEscrow.UnknownLease.selector);
        escrow.settle(operator, lease, 1_000);
        vm.prank(buyer);
        vm.expectRevert(IEscrow.Range.selector);
        escrow.settle(operator, lease, 10_000_001);
    }

    /// Whoever gains by fees sweeps them before a refund needs them.
    function test_a_sweep_does_not_take_the_fee_that_a_refund_waives() public {
        open(lease, 10_000_000, 1_000_000);
        escrow.sweepFees();
        pay(lease, 1_000_000, 0);
        vm.warp(NOW + 30 days);
        escrow.sweepFees();
        vm.expectPartialRevert(IEscrow.NotYet.selector);
        escrow.sweepFees();
        _refund(500_000);
        vm.assertEq(balanceOf(buyer), 1_000e18 - 500_000 * MICRO);
        vm.warp(NOW + 60 days);
        escrow.sweepFees();
        vm.assertEq(ath.balanceOf(treasury), 100_000 * MICRO);
        vm.assertEq(balanceOf(treasury), 0);
    }
}
