// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AthL1} from "../src/AthL1.sol";
import {CheckerLicense} from "../src/CheckerLicense.sol";
import {Registry} from "../src/Registry.sol";
import {Slashing} from "../src/Slashing.sol";
import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IPriceOracle} from "../src/interfaces/IPriceOracle.sol";
import {IL1CustomGateway, IL1GatewayRouter} from "../src/interfaces/arbitrum/ICustomToken.sol";
import {Committee} from "../src/rewards/Committee.sol";
import {FixedOracle} from "./Mocks.sol";
import {Network} from "./Network.sol";
import {Gateways} from "./Others.t.sol";

/// What an audit of the other contracts found, each as it was exploited.
contract AuditNetworkTest is Network {
    bytes16 internal constant LEASE = bytes16(uint128(1));

    /// While the verifier's transaction waits, the owner changes the class and puts the fingerprint
    /// back that the verifier has seen.
    function test_a_class_that_nobody_looked_at_is_not_verified() public {
        registry.unverify(container, "again");
        uint32 seen = registry.subjectOf(container).generation;
        vm.startPrank(owner);
        registry.setFingerprint(container, 9, "another");
        registry.setFingerprint(container, 9, "fingerprint");
        vm.stopPrank();
        vm.expectRevert(Registry.Outdated.selector);
        registry.verify(container, "fingerprint", seen);
        vm.assertTrue(!registry.subjectOf(container).verified);
    }

    /// The convicted host names another operator, so that the court finds no lease.
    function test_another_operator_does_not_escape_a_refund() public {
        escrow.deposit(buyer, 1_000e18);
        IEscrow.Order memory o;
        (o.lease, o.buyer, o.operator, o.budget) = (LEASE, buyer, operator, 10_000_000);
        (o.issued, o.expires) = (uint64(NOW * 1000), uint64(NOW * 1000 + 1));
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.prank(operator);
        escrow.reserve(o, s, 5_000_000);
        IEscrow.Voucher memory v = IEscrow.Voucher(LEASE, operator, 1_000_000, 1);
        s = sig(BUYER, escrow.voucherHash(v));
        vm.prank(operator);
        escrow.redeem(buyer, v, s, 0);
        vm.prank(owner);
        staking.commit(container);
        uint256 number = slashing.open(
            Slashing.Charge(container, 1, Slashing.Cause.Provider, "evidence", buyer, 0, address(0))
        );
        vm.prank(owner);
        registry.setOperator(container, address(0xE5CA9E));
        vm.prank(owner);
        registry.setOperator(host, address(0xE5CA9F));
        vm.assertTrue(registry.isOperatorOf(container, address(0xE5CA9F)));
        vm.assertEq(registry.isOperatorOf(container, address(0)), false);
        vm.warp(block.timestamp + 3 days + 1);
        slashing.execute(number);
        vm.expectRevert(Slashing.Range.selector);
        slashing.refund(number, buyer, LEASE, 1_000_000);
        slashing.refund(number, operator, LEASE, 1_000_000);
        (uint256 balance,,,,) = escrow.accountOf(buyer);
        vm.assertEq(balance, 1_000e18);
    }

    /// A feed that is shut down must not lock half of the supply.
    function test_a_dead_price_does_not_lock_the_rewards() public {
        FixedOracle next = new FixedOracle(PRICE / 2);
        oracle.setStale(true);
        Committee.Epoch memory e = _epoch(1, "root", 0, 0, 0);
        vm.warp(emissions.epochEnd(1));
        rewards.propose(e, _signed(e, 2));
        vm.warp(block.timestamp + 1 days);
        vm.expectRevert(abi.encodeWithSelector(IPriceOracle.Stale.selector, 1));
        rewards.accept();
        vm.prank(owner);
        vm.expectRevert();
        emissions.setOracle(next);
        emissions.setOracle(next);
        rewards.accept();
        vm.assertEq(rewards.epoch(), 1);
        licenses.setOracle(next);
        licenses.addTier(CheckerLicense.Tier(500_000_000, 1, 0, 1, 0, 0));
        vm.prank(buyer);
        vm.expectRevert(abi.encodeWithSelector(CheckerLicense.TooDear.selector, 20_000e18));
        licenses.buy(0, 1, 1, 0, new bytes32[](0));
    }

    /// A message to the rollup that was lost can be sent again, for the same token only.
    function test_tying_to_the_rollup_can_be_tried_again() public {
        Gateways g = new Gateways();
        AthL1 l1 = new AthL1(buyer, IL1CustomGateway(address(g)), IL1GatewayRouter(address(g)), address(this));
        l1.registerTokenOnL2(address(7), 1, 1, 1, 1, 1, 0, 0, buyer);
        l1.registerTokenOnL2(address(7), 1, 1, 1, 1, 1, 0, 0, buyer);
        vm.expectRevert(AthL1.NotRegistrar.selector);
        l1.registerTokenOnL2(address(8), 1, 1, 1, 1, 1, 0, 0, buyer);
    }
}
