// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IPriceOracle} from "../src/interfaces/IPriceOracle.sol";
import {EscrowBase} from "./EscrowBase.sol";

/// The life of leases and money, step by step.
contract EscrowTest is EscrowBase {
    function test_a_lease_from_order_to_close() public {
        open(lease, 10_000_000, 1_000_000);
        vm.assertEq(heldOf(buyer), 1_000_000 * MICRO);
        pay(lease, 400_000, 1_000_000);
        vm.assertEq(balanceOf(operator), 320_000 * MICRO);
        vm.assertEq(balanceOf(treasury), 80_000 * MICRO);
        vm.assertEq(heldOf(buyer), 1_000_000 * MICRO);
        IEscrow.Lane memory l = escrow.laneOf(buyer, operator, lease);
        vm.assertEq(l.paid, 400_000);
        vm.assertEq(l.held, 1_000_000 * MICRO);
        vm.prank(operator);
        escrow.close(buyer, lease);
        vm.assertEq(heldOf(buyer), 0);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).held, 1_000_000 * MICRO);
        (uint256 balance,,,, uint64 spent) = escrow.accountOf(buyer);
        vm.assertEq(balance, 1_000e18 - 400_000 * MICRO);
        vm.assertEq(spent, 400_000);
        vm.prank(operator);
        escrow.close(buyer, lease);
        vm.assertEq(heldOf(buyer), 0);
    }

    function test_the_same_order_again_changes_nothing() public {
        open(lease, 10_000_000, 1_000_000);
        open(lease, 10_000_000, 2_000_000);
        vm.assertEq(heldOf(buyer), 1_000_000 * MICRO);
    }

    function test_Reverts_When_an_order_comes_after_its_close() public {
        open(lease, 10_000_000, 1_000_000);
        vm.prank(operator);
        escrow.close(buyer, lease);
        IEscrow.Order memory o = order(lease, 10_000_000);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.expectRevert(IEscrow.Closed.selector);
        vm.prank(operator);
        escrow.reserve(o, s, 1);
    }

    function test_Reverts_When_a_lane_is_busy_or_took_a_later_order() public {
        bytes16 other = bytes16(uint128(0xB2000000_00000000_00000000_00000001));
        IEscrow.Order memory o = order(other, 5);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        open(lease, 10_000_000, 1_000_000);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.LaneBusy.selector, lease));
        vm.prank(operator);
        escrow.reserve(o, s, 1);
        vm.prank(operator);
        escrow.close(buyer, lease);
        vm.expectRevert(IEscrow.Replayed.selector);
        vm.prank(operator);
        escrow.reserve(o, s, 1);
        vm.warp(NOW + 1);
        open(other, 5, 1);
        vm.expectRevert(IEscrow.UnknownLease.selector);
        escrow.laneOf(buyer, operator, lease);
    }

    function test_Reverts_When_an_order_is_wrong() public {
        IEscrow.Order memory o = order(lease, 10);
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.expectRevert(IEscrow.NotOperator.selector);
        escrow.reserve(o, s, 1);
        vm.startPrank(operator);
        vm.expectRevert(IEscrow.Range.selector);
        escrow.reserve(o, s, 11);
        o.budget = 11;
        vm.expectRevert(IEscrow.Signature.selector);
        escrow.reserve(o, s, 1);
        o.budget = 1e15 + 1;
        vm.expectRevert(IEscrow.Range.selector);
        escrow.reserve(o, s, 1);
        o.budget = 10;
        vm.warp(NOW + 61);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Expired.selector, o.expires));
        escrow.reserve(o, s, 1);
        vm.warp(NOW);
        o = order(lease, 1e15);
        s = sig(BUYER, escrow.orderHash(o));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Funds.selector, 1e15 * MICRO, 1_000e18));
        escrow.reserve(o, s, 1e15);
    }

    function test_a_voucher_pays_once() public {
        open(lease, 10_000_000, 1_000_000);
        pay(lease, 400_000, 0);
        pay(lease, 400_000, 0);
        pay(lease, 300_000, 0);
        vm.assertEq(balanceOf(operator), 320_000 * MICRO);
        vm.assertEq(heldOf(buyer), 600_000 * MICRO);
    }

    function test_short_money_pays_what_is_there_and_the_rest_later() public {
        open(lease, 100_000_000, 50_000_000);
        pay(lease, 60_000_000, 5);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).paid, 50_000_000);
        vm.assertEq(balanceOf(buyer), 0);
        escrow.deposit(buyer, 300e18);
        pay(lease, 60_000_000, 0);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).paid, 60_000_000);
        vm.assertEq(balanceOf(buyer), 100e18);
    }

    function test_no_more_is_set_aside_than_the_budget_leaves_and_the_margin_adds() public {
        open(lease, 10_000_000, 1_000_000);
        pay(lease, 4_000_000, 1_000_000_000);
        vm.assertEq(heldOf(buyer), 6_000_000 * MICRO);
        escrow.setHoldMargin(1_000);
        pay(lease, 5_000_000, 5_000_000);
        vm.assertEq(heldOf(buyer), 5_500_000 * MICRO);
        oracle.set(PRICE / 2);
        pay(lease, 5_000_000, 5_000_000);
        vm.assertEq(heldOf(buyer), 11_000_000 * MICRO);
    }

    function test_one_bad_voucher_does_not_stop_a_batch() public {
        open(lease, 10_000_000, 1_000_000);
        IEscrow.Redemption[] memory batch = new IEscrow.Redemption[](5);
        for (uint256 i; i < 5; ++i) {
            IEscrow.Voucher memory v = voucher(lease, 100_000 * (i + 1));
            if (i == 0) v.lease = bytes16(uint128(99));
            if (i == 2) v.amount = 10_000_001;
            if (i == 3) v.operator = buyer;
            batch[i] = IEscrow.Redemption(buyer, v, sig(i == 1 ? OPERATOR : BUYER, escrow.voucherHash(v)), 0);
        }
        vm.recordLogs();
        vm.prank(operator);
        escrow.redeemBatch(batch);
        vm.assertEq(escrow.laneOf(buyer, operator, lease).paid, 500_000);
        vm.assertEq(vm.getRecordedLogs().length, 5);
    }

    function test_close_with_the_last_voucher() public {
        open(lease, 10_000_000, 1_000_000);
        IEscrow.Voucher memory v = voucher(lease, 700_000);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        vm.startPrank(operator);
        escrow.closeWith(buyer, v, s);
        vm.assertEq(balanceOf(operator), 560_000 * MICRO);
        vm.assertEq(heldOf(buyer), 0);
        escrow.closeWith(buyer, v, s);
        v.amount = 800_000;
        s = sig(BUYER, escrow.voucherHash(v));
        vm.expectRevert(IEscrow.Closed.selector);
        escrow.closeWith(buyer, v, s);
        vm.expectRevert(IEscrow.Closed.selector);
        escrow.redeem(buyer, v, s, 0);
    }

    function test_a_buyer_releases_an_abandoned_lease() public {
        open(lease, 10_000_000, 1_000_000);
        uint256 from = NOW + 60 + 1 days;
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.NotYet.selector, from));
        vm.prank(buyer);
        escrow.release(operator, lease);
        pay(lease, 1, 0);
        vm.warp(from);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.NotYet.selector, from - 1 + 1 days));
        vm.prank(buyer);
        escrow.release(operator, lease);
        vm.warp(from + 1 days);
        vm.prank(buyer);
        escrow.release(operator, lease);
        vm.assertEq(heldOf(buyer), 0);
    }

    function test_a_withdrawal_thaws_and_takes_only_what_is_free() public {
        open(lease, 10_000_000, 10_000_000);
        vm.startPrank(buyer);
        escrow.thaw(1_000e18);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.NotYet.selector, NOW + 1 days));
        escrow.withdraw(buyer);
        vm.warp(NOW + 1 days);
        escrow.withdraw(address(0xCAFE));
        vm.assertEq(ath.balanceOf(address(0xCAFE)), 800e18);
        vm.assertEq(balanceOf(buyer), 200e18);
        vm.expectRevert(IEscrow.Range.selector);
        escrow.withdraw(buyer);
        escrow.thaw(1);
        escrow.thaw(0);
        vm.warp(NOW + 3 days);
        vm.expectRevert(IEscrow.Range.selector);
        escrow.withdraw(buyer);
    }

    function test_a_refund_gives_the_fee_back_and_ends_the_lease() public {
        open(lease, 10_000_000, 1_000_000);
        pay(lease, 1_000_000, 0);
        vm.prank(operator);
        escrow.refund(buyer, operator, lease, 250_000, "interrupted");
        vm.assertEq(balanceOf(operator), 600_000 * MICRO);
        vm.assertEq(balanceOf(treasury), 150_000 * MICRO);
        vm.assertEq(balanceOf(buyer), 1_000e18 - 750_000 * MICRO);
        vm.expectRevert(IEscrow.Closed.selector);
        vm.prank(operator);
        escrow.redeem(buyer, voucher(lease, 1_000_000), "", 0);
        vm.prank(operator);
        escrow.refund(buyer, operator, lease, 9_000_000, "all of it");
        vm.assertEq(balanceOf(buyer), 1_000e18);
    }

    function test_a_statement_pays_many_under_one_signature() public {
        open(lease, 10_000_000, 1_000_000);
        bytes32 a = keccak256(bytes.concat(keccak256(abi.encode(bytes16(uint128(1)), uint256(100_000)))));
        bytes32 b = keccak256(bytes.concat(keccak256(abi.encode(bytes16(uint128(2)), uint256(200_000)))));
        bytes32 root = a < b ? keccak256(bytes.concat(a, b)) : keccak256(bytes.concat(b, a));
        IEscrow.Statement memory st = IEscrow.Statement(lease, operator, 300_000, root, 2);
        bytes memory s = sig(BUYER, escrow.statementHash(st));
        vm.prank(operator);
        escrow.redeemStatement(buyer, st, s, 0);
        vm.assertEq(balanceOf(operator), 240_000 * MICRO);
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = b;
        vm.assertTrue(escrow.verifyLeaf(root, bytes16(uint128(1)), 100_000, proof));
        vm.assertEq(escrow.verifyLeaf(root, bytes16(uint128(1)), 100_001, proof), false);
    }

    function test_settling_halts_while_the_price_is_stale_and_closing_does_not() public {
        open(lease, 10_000_000, 1_000_000);
        IEscrow.Voucher memory v = voucher(lease, 5);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        oracle.setStale(true);
        vm.startPrank(operator);
        vm.expectRevert(abi.encodeWithSelector(IPriceOracle.Stale.selector, 1));
        escrow.redeem(buyer, v, s, 0);
        v.amount = 0;
        escrow.closeWith(buyer, v, "");
        vm.assertEq(heldOf(buyer), 0);
    }
}
