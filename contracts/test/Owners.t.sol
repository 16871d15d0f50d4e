// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IEscrow} from "../src/interfaces/IEscrow.sol";
import {IPriceOracle} from "../src/interfaces/IPriceOracle.sol";
import {Slashing} from "../src/Slashing.sol";
import {Staking} from "../src/Staking.sol";
import {Network} from "./Network.sol";

/// No owner path to users' funds: whoever holds whatever role calls any restricted function with
/// any arguments, and users' money stays where it is.
contract OwnersTest is Network {
    bytes16 internal constant LEASE = bytes16(uint128(1));

    function setUp() public override {
        super.setUp();
        escrow.deposit(buyer, 1_000e18);
        escrow.deposit(operator, 500e18);
        IEscrow.Order memory o;
        (o.lease, o.buyer, o.operator, o.budget) = (LEASE, buyer, operator, 10_000_000);
        (o.issued, o.expires) = (uint64(NOW * 1000), uint64(NOW * 1000 + 1));
        bytes memory s = sig(BUYER, escrow.orderHash(o));
        vm.prank(operator);
        escrow.reserve(o, s, 5_000_000);
        vm.prank(owner);
        staking.commit(container);
        _stake(200_000e18);
    }

    /// Everything restricted that a deployment has, but what a penalty or an epoch is made of.
    function _call(uint256 which, uint256 a, uint256 b, address who)
        internal
        view
        returns (address, bytes memory)
    {
        which = which % 16;
        if (which == 0) return (address(escrow), abi.encodeCall(escrow.setFee, (uint16(a))));
        if (which == 1) return (address(escrow), abi.encodeCall(escrow.setThawPeriod, (uint32(a))));
        if (which == 2) return (address(escrow), abi.encodeCall(escrow.setReleaseGrace, (uint32(a))));
        if (which == 3) return (address(escrow), abi.encodeCall(escrow.setHoldMargin, (uint16(a))));
        if (which == 4) return (address(escrow), abi.encodeCall(escrow.setOracle, (IPriceOracle(who))));
        if (which == 5) return (address(escrow), abi.encodeCall(escrow.pause, (uint32(a))));
        if (which == 6) return (address(escrow), abi.encodeCall(escrow.unpause, ()));
        if (which == 7) return (address(staking), abi.encodeCall(staking.setCoefficient, (uint128(a))));
        if (which == 8) return (address(staking), abi.encodeCall(staking.setSlashCap, (uint16(a))));
        if (which == 9) return (address(staking), abi.encodeCall(staking.setOracle, (IPriceOracle(who))));
        if (which == 10) {
            return (
                address(staking),
                abi.encodeCall(staking.setClass, (uint32(b), Staking.Class(uint128(a), 0, false)))
            );
        }
        if (which == 11) {
            return (address(registry), abi.encodeCall(registry.unverify, (container, bytes32(a))));
        }
        if (which == 12) {
            return (address(rewards), abi.encodeCall(rewards.setContest, (uint32(a), uint128(b))));
        }
        if (which == 13) {
            return (address(slashing), abi.encodeCall(slashing.setTerms, (uint32(a), uint128(b))));
        }
        if (which == 14) return (address(slashing), abi.encodeCall(slashing.decide, (a, uint128(b))));
        return
            (address(escrow), abi.encodeCall(escrow.refund, (buyer, operator, LEASE, uint64(a), bytes32(b))));
    }

    function testFuzz_no_role_reaches_users_money(
        uint256 which,
        uint256 a,
        uint256 b,
        uint64 role,
        address who
    ) public {
        role = uint64(bound(role, 0, 9));
        vm.assume(who != address(0) && who != buyer && who != operator && who != owner);
        if (role < 9) manager.grantRole(role, who, 0);
        // Small numbers, too, so that the bounds are met.
        if (b % 2 == 0) a = a % 100_000;
        (address to, bytes memory data) = _call(which, a, b, who);
        uint256 wallet = ath.balanceOf(who);
        uint256 buyers = ath.balanceOf(buyer);
        vm.prank(who);
        (bool ok,) = to.call(data);
        ok;
        (uint256 balance,,,,) = escrow.accountOf(buyer);
        vm.assertEq(balance, 1_000e18);
        (balance,,,,) = escrow.accountOf(operator);
        vm.assertEq(balance, 500e18);
        (uint256 staked,) = staking.stakeOf(container, owner);
        vm.assertEq(staked, 200_000e18);
        vm.assertEq(ath.balanceOf(who), wallet);
        vm.assertEq(ath.balanceOf(buyer), buyers);
        // And they can still leave.
        vm.prank(operator);
        escrow.thaw(500e18);
        vm.warp(block.timestamp + 30 days);
        vm.prank(operator);
        escrow.withdraw(operator);
        vm.assertEq(ath.balanceOf(operator), 500e18);
        if (escrow.releaseGrace() == 30 days) vm.warp(block.timestamp + 2);
        if (escrow.laneOf(buyer, operator, LEASE).open) {
            vm.prank(buyer);
            escrow.release(operator, LEASE);
        }
        vm.prank(buyer);
        escrow.thaw(1_000e18);
        vm.warp(block.timestamp + 30 days);
        vm.prank(buyer);
        escrow.withdraw(buyer);
        vm.assertEq(ath.balanceOf(buyer), buyers + 1_000e18);
    }

    /// The refunder role moves one lease's payment back to that lease's buyer, and nothing else.
    function testFuzz_a_forced_refund_is_of_one_lease_to_its_buyer(uint64 micros) public {
        IEscrow.Voucher memory v = IEscrow.Voucher(LEASE, operator, 1_000_000, 1);
        bytes memory s = sig(BUYER, escrow.voucherHash(v));
        vm.prank(operator);
        escrow.redeem(buyer, v, s, 0);
        uint256 number = slashing.open(
            Slashing.Charge(container, 1, Slashing.Cause.Provider, "evidence", buyer, 0, address(0))
        );
        vm.expectRevert(Slashing.Range.selector);
        slashing.refund(number, operator, LEASE, micros);
        vm.warp(block.timestamp + 3 days + 1);
        slashing.execute(number);
        slashing.refund(number, operator, LEASE, micros);
        (uint256 b,,,,) = escrow.accountOf(buyer);
        (uint256 o,,,,) = escrow.accountOf(operator);
        (uint256 t,,,,) = escrow.accountOf(address(treasury));
        vm.assertEq(b + o + t, 1_500e18);
        vm.assertLe(b, 1_000e18);
        vm.assertGe(o, 500e18);
        vm.warp(block.timestamp + 31 days);
        vm.expectPartialRevert(IEscrow.Expired.selector);
        slashing.refund(number, operator, LEASE, 1);
    }
}
