// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Registry} from "../src/Registry.sol";
import {Slashing} from "../src/Slashing.sol";
import {Staking} from "../src/Staking.sol";
import {Vests} from "../src/libraries/Vests.sol";
import {Network} from "./Network.sol";

/// Registering, staking, and what is taken from whom.
contract StakingTest is Network {
    uint256 internal constant NEED = 133_422e18;

    function _commit() internal {
        vm.prank(owner);
        staking.commit(container);
    }

    function _charge(uint16 code, bytes32 evidence) internal view returns (Slashing.Charge memory) {
        return
            Slashing.Charge(
                container, code, Slashing.Cause.Provider, evidence, buyer, 10_000e18, address(0xE)
            );
    }

    function _convict(uint16 code, bytes32 evidence) internal returns (uint256 number) {
        number = slashing.open(_charge(code, evidence));
        vm.warp(block.timestamp + 3 days + 1);
        slashing.execute(number);
    }

    function test_a_container_is_active_when_verified_and_staked() public {
        vm.assertEq(staking.requirement(1), NEED);
        _commit();
        _stake(NEED - 1);
        vm.assertEq(staking.isActive(container), false);
        staking.stake(container, 1);
        vm.assertEq(staking.isActive(container), true);
        registry.unverify(container, "offline");
        vm.assertEq(staking.isActive(container), false);
    }

    function test_another_fingerprint_means_verify_and_commit_again() public {
        _commit();
        _stake(NEED);
        vm.prank(owner);
        registry.setFingerprint(container, 1, "another");
        vm.expectRevert(Registry.Outdated.selector);
        registry.verify(container, "fingerprint", 1);
        registry.verify(container, "another", 1);
        vm.assertEq(staking.isActive(container), false);
        staking.setCoefficient(2_000e18);
        vm.prank(owner);
        staking.commit(container);
        vm.assertEq(staking.requiredOf(container), 200_000e18);
        vm.assertEq(staking.isActive(container), false);
        _stake(200_000e18 - NEED);
        vm.assertEq(staking.isActive(container), true);
    }

    /// A host that fears a penalty cannot make it small by changing to a cheaper class.
    function test_a_lower_commitment_does_not_lower_penalties_at_once() public {
        _commit();
        _stake(NEED);
        vm.prank(owner);
        registry.setFingerprint(container, 2, "cheap");
        vm.prank(owner);
        vm.expectRevert(Staking.Range.selector);
        staking.commit(container);
        staking.setClass(2, Staking.Class(1e18, 0, false));
        vm.prank(owner);
        staking.commit(container);
        vm.prank(owner);
        staking.commit(container);
        vm.assertEq(staking.requiredOf(container), NEED);
        registry.verify(container, "cheap", 1);
        vm.assertEq(staking.isActive(container), true);
        vm.warp(block.timestamp + 180 days + 1);
        vm.assertEq(staking.requiredOf(container), 1334.22e18);
    }

    function test_an_old_commitment_keeps_its_K() public {
        _commit();
        staking.setCoefficient(9_999e18);
        vm.assertEq(staking.requiredOf(container), NEED);
    }

    function test_a_class_can_be_pegged_to_usd() public {
        staking.setClass(1, Staking.Class(0, 5_000_000_000, true));
        vm.assertEq(staking.requirement(1), 100_000e18);
        oracle.set(0.1e18);
        vm.assertEq(staking.requirement(1), 50_000e18);
    }

    function test_nobody_takes_anothers_place() public {
        bytes32 h = registry.registerHost("node", address(9));
        vm.assertTrue(h != host);
        vm.expectRevert(Registry.NotOwner.selector);
        registry.registerContainer(host, "x", 1, "y");
        vm.expectRevert(Registry.NotOwner.selector);
        registry.setFingerprint(container, 1, "y");
        vm.prank(owner);
        vm.expectRevert(Registry.Exists.selector);
        registry.registerContainer(host, "container", 1, "z");
    }

    /// Known bug of a peer: what had thawed and was not withdrawn escaped the slash.
    function test_an_expired_unbond_that_was_not_withdrawn_is_slashed() public {
        _commit();
        _stake(NEED);
        vm.prank(owner);
        uint256 unbond = staking.unstake(container, NEED);
        vm.warp(block.timestamp + 181 days);
        _convict(1, "evidence");
        uint256 penalty = NEED * 3_333 / 10_000;
        (, uint256 worth) = staking.unbondOf(unbond);
        vm.assertEq(worth, NEED - penalty);
        uint256 before = ath.balanceOf(owner);
        vm.assertEq(staking.withdraw(unbond), NEED - penalty);
        vm.assertEq(ath.balanceOf(owner), before + NEED - penalty);
        vm.expectRevert(Staking.NotOwner.selector);
        staking.withdraw(unbond);
    }

    function test_unbonding_takes_180_days() public {
        _stake(NEED);
        vm.prank(owner);
        uint256 unbond = staking.unstake(container, NEED);
        vm.warp(block.timestamp + 180 days - 1);
        vm.expectRevert(abi.encodeWithSelector(Staking.NotYet.selector, block.timestamp + 1));
        staking.withdraw(unbond);
        vm.warp(block.timestamp + 1);
        staking.withdraw(unbond);
    }

    /// Known bug of a peer: what is slashed went to who accused.
    function test_the_buyer_is_made_whole_the_reporter_gets_a_bounty_the_accuser_nothing() public {
        _commit();
        _stake(NEED);
        uint256 mine = ath.balanceOf(address(this));
        uint256 buyers = ath.balanceOf(buyer);
        uint256 treasurys = ath.balanceOf(address(treasury));
        _convict(1, "evidence");
        uint256 penalty = NEED * 3_333 / 10_000;
        vm.assertEq(ath.balanceOf(address(this)), mine);
        vm.assertEq(ath.balanceOf(buyer), buyers + 10_000e18);
        vm.assertEq(ath.balanceOf(address(0xE)), 1_000e18);
        vm.assertEq(ath.balanceOf(address(treasury)), treasurys + penalty - 11_000e18);
    }

    function test_penalties_grow_and_a_period_has_a_cap() public {
        _commit();
        _stake(NEED);
        staking.setSlashCap(10_000);
        _convict(1, "1");
        _convict(1, "2");
        vm.assertEq(staking.slashedOf(container), 2 * (NEED * 3_333 / 10_000));
        vm.assertEq(slashing.penaltyOf(container, 1), NEED);
        vm.warp(block.timestamp + 91 days);
        vm.assertEq(slashing.penaltyOf(container, 1), NEED * 3_333 / 10_000);

        staking.setSlashCap(1_000);
        uint256 left = staking.collateralOf(container);
        uint256 number = _convict(2, "3");
        vm.assertEq(staking.collateralOf(container), left - left / 10);
        slashing.execute(number);
        vm.assertEq(staking.collateralOf(container), left - left / 10);
        vm.warp(block.timestamp + 7 days);
        slashing.execute(number);
        vm.assertLe(staking.collateralOf(container), left * 82 / 100);
    }

    function test_pending_rewards_go_before_stake() public {
        _commit();
        _stake(NEED);
        (bytes32 root, bytes32[] memory proof) = _tree(_leaf(owner, 0, 10_000e18), 3);
        _count(_epoch(1, root, 10_000e18, 0, 0));
        rewards.claim(owner, 0, 10_000e18, _host(), proof);
        _convict(1, "evidence");
        (, uint256 pending, uint256 debt,) = rewards.accountOf(owner, 0);
        vm.assertEq(debt, pending);
        vm.assertEq(staking.slashedOf(container), NEED * 3_333 / 10_000 - 10_000e18);
        uint256[] memory which = new uint256[](1);
        vm.warp(block.timestamp + 180 days);
        uint256 before = ath.balanceOf(owner);
        rewards.release(owner, 0, which);
        vm.assertEq(ath.balanceOf(owner), before);
    }

    function test_only_a_providers_fault_is_punished() public {
        _commit();
        _stake(NEED);
        Slashing.Charge memory charge = _charge(1, "evidence");
        for (uint8 cause; cause < 4; ++cause) {
            charge.cause = Slashing.Cause(cause);
            if (charge.cause == Slashing.Cause.Provider) continue;
            vm.expectRevert(Slashing.NotProvider.selector);
            slashing.open(charge);
        }
        slashing.open(_charge(1, "evidence"));
        vm.expectRevert(Slashing.Used.selector);
        slashing.open(_charge(1, "evidence"));
    }

    function test_an_appeal_stops_a_penalty_and_a_silent_court_ends_it() public {
        _commit();
        _stake(NEED);
        uint256 number = slashing.open(_charge(1, "evidence"));
        vm.expectRevert(abi.encodeWithSelector(Slashing.NotYet.selector, block.timestamp + 3 days));
        slashing.execute(number);
        vm.expectRevert(Slashing.NotOwner.selector);
        slashing.appeal(number, "no");
        vm.prank(owner);
        slashing.appeal(number, "no");
        vm.warp(block.timestamp + 4 days);
        vm.expectRevert(Slashing.Range.selector);
        slashing.execute(number);
        vm.warp(block.timestamp + 27 days);
        slashing.lapse(number);
        vm.expectRevert(Slashing.Range.selector);
        slashing.execute(number);
        vm.assertEq(staking.slashedOf(container), 0);
        vm.assertEq(slashing.recordOf(container, 1).count, 0);
    }

    function test_the_court_can_only_lower_a_penalty() public {
        _commit();
        _stake(NEED);
        uint256 number = slashing.open(_charge(1, "evidence"));
        vm.prank(owner);
        slashing.appeal(number, "less");
        vm.expectRevert(Slashing.Range.selector);
        slashing.decide(number, uint128(NEED));
        slashing.decide(number, 100e18);
        slashing.execute(number);
        vm.assertEq(staking.slashedOf(container), 100e18);
    }

    function test_delegators_share_a_slash_and_votes_follow() public {
        _commit();
        vm.prank(owner);
        staking.delegate(owner);
        _stake(NEED);
        staking.delegate(address(this));
        staking.stake(container, NEED);
        vm.assertEq(staking.getVotes(owner), NEED);
        _convict(1, "evidence");
        uint256 half = NEED * 3_333 / 10_000 / 2;
        (uint256 mine,) = staking.stakeOf(container, address(this));
        vm.assertEq(mine, NEED - half);
        staking.sync(container, owner);
        vm.assertEq(staking.getVotes(owner), NEED - half);
        vm.prank(owner);
        staking.unstake(container, NEED);
        vm.assertEq(staking.getVotes(owner), 0);
    }

    function test_a_wiped_pool_takes_new_stakes_whole() public {
        _commit();
        _stake(NEED);
        staking.setSlashCap(10_000);
        _convict(2, "all of it");
        vm.assertEq(staking.collateralOf(container), 0);
        staking.stake(container, 500e18);
        (uint256 old,) = staking.stakeOf(container, owner);
        (uint256 mine,) = staking.stakeOf(container, address(this));
        vm.assertEq(old, 0);
        vm.assertEq(mine, 500e18);
        vm.prank(owner);
        vm.expectRevert(Staking.Range.selector);
        staking.unstake(container, 1);
    }

    /// Known bug of a peer: a cumulative sum was cut to what remained.
    function testFuzz_slashed_is_monotone_and_within_collateral(uint256 a, uint256 b, uint256 c) public {
        _commit();
        _stake(NEED);
        staking.setSlashCap(10_000);
        uint256[3] memory wanted = [bound(a, 0, NEED), bound(b, 0, NEED), bound(c, 0, NEED)];
        uint256 total;
        for (uint256 i; i < 3; ++i) {
            vm.prank(address(slashing));
            uint256 taken = staking.slash(container, wanted[i]);
            vm.assertLe(taken, wanted[i]);
            total += taken;
            vm.assertEq(staking.slashedOf(container), total);
            vm.assertEq(staking.collateralOf(container) + total, NEED);
        }
    }

    function _host() internal pure returns (Vests.Plan) {
        return Vests.Plan.Host;
    }
}

