// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Ath} from "../src/Ath.sol";
import {Emissions} from "../src/Emissions.sol";
import {Rewards} from "../src/Rewards.sol";
import {Slashing} from "../src/Slashing.sol";
import {Staking} from "../src/Staking.sol";
import {Vests} from "../src/libraries/Vests.sol";
import {Committee} from "../src/rewards/Committee.sol";
import {Network} from "./Network.sol";
import {T} from "./T.sol";

/// Stakes, slashes, epochs and claims, in any order.
contract NetworkHandler is T {
    Ath internal ath;
    Staking internal staking;
    Slashing internal slashing;
    Rewards internal rewards;
    Emissions internal emissions;
    bytes32[2] public subjects;
    address[3] public stakers;

    uint256 public staked;
    uint256 public withdrawn;
    mapping(bytes32 => uint256) public slashed;
    uint256 public executions;
    uint256 public releases;
    string public broken;
    uint256 public cases;
    uint256 private _salt;

    constructor(
        Ath a,
        Staking s,
        Slashing l,
        Rewards r,
        Emissions e,
        bytes32[2] memory subjects_,
        address owner
    ) {
        (ath, staking, slashing, rewards, emissions, subjects) = (a, s, l, r, e, subjects_);
        stakers = [owner, address(0x51), address(0x52)];
    }

    /// Spreads what the fuzzer gives, which is often 0 or the largest number.
    function mix(uint256 seed, uint256 most) private returns (uint256) {
        return uint256(keccak256(abi.encode(seed, ++_salt))) % (most + 1);
    }

    function stake(uint256 seed) external {
        uint256 amount = 1 + mix(seed, 1e24);
        vm.prank(stakers[mix(seed, 2)]);
        staking.stake(subjects[seed % 2], amount);
        staked += amount;
    }

    function unstake(uint256 seed) external {
        (bytes32 subject, address who) = (subjects[seed % 2], stakers[mix(seed, 2)]);
        (uint256 worth, uint256 all) = staking.stakeOf(subject, who);
        if (all == 0) return;
        uint256 shares = mix(seed, 3) == 0 ? all : 1 + mix(seed, all - 1);
        vm.prank(who);
        (, uint256 amount) = staking.unbondOf(staking.unstake(subject, shares));
        if (amount > worth) broken = "an unbond is worth more than the stake";
    }

    function withdraw(uint256 seed) external {
        uint256 last = staking.unbonds();
        if (last == 0) return;
        try staking.withdraw(1 + mix(seed, last - 1)) returns (uint256 amount) {
            withdrawn += amount;
        } catch {}
    }

    function accuse(uint256 seed) external {
        Slashing.Charge memory c;
        (c.subject, c.code) = (subjects[seed % 2], uint16(1 + mix(seed, 1)));
        (c.evidence, c.buyer, c.harm) = (bytes32(++_salt), address(0xB1), uint128(mix(seed, 1e23)));
        (c.reporter, c.cause) = (address(0xE1), Slashing.Cause.Provider);
        cases = slashing.open(c);
    }

    function appeal(uint256 seed) external {
        if (cases == 0) return;
        uint256 number = 1 + mix(seed, cases - 1);
        vm.prank(stakers[0]);
        try slashing.appeal(number, "") {
            uint256 left = slashing.caseOf(number).left;
            if (mix(seed, 1) == 0) slashing.decide(number, uint128(mix(seed, left)));
        } catch {}
    }

    function execute(uint256 seed) external {
        for (uint256 n = 1; n <= cases; ++n) {
            if (mix(seed, 1) == 0) continue;
            try slashing.execute(n) {
                ++executions;
            } catch {}
        }
        for (uint256 i; i < 2; ++i) {
            uint256 total = staking.slashedOf(subjects[i]);
            if (total < slashed[subjects[i]]) broken = "slashed fell";
            slashed[subjects[i]] = total;
        }
    }

    function epoch(uint256 seed) external {
        Committee.Epoch memory e;
        e.number = rewards.epoch() + 1;
        if (block.timestamp < emissions.epochEnd(e.number)) vm.warp(emissions.epochEnd(e.number));
        e.units = mix(seed, 1e6);
        e.totals = [_more(0, mix(seed, mix(seed, 9) == 0 ? 1e6 : 50)), _more(1, mix(seed, 1e6)), 0];
        bytes32 left = _leaf(stakers[0], 0, e.totals[0]);
        bytes32 right = _leaf(stakers[1], 1, e.totals[1]);
        e.root = left < right ? keccak256(bytes.concat(left, right)) : keccak256(bytes.concat(right, left));
        rewards.propose(e, _sign(rewards.epochHash(e)));
        vm.warp(block.timestamp + 1 days);
        rewards.accept();
        _claim(0, e.totals[0], Vests.Plan.Host, right);
        _claim(1, e.totals[1], seed % 2 == 0 ? Vests.Plan.Checker : Vests.Plan.CheckerFast, left);
    }

    function _more(uint8 stream, uint256 by) private view returns (uint256) {
        (uint64 total,,,,) = rewards.streams(stream);
        return (uint256(total) + emissions.room(stream) / 1e9 * by / 1e6) * 1e9;
    }

    function _sign(bytes32 digest) private pure returns (bytes[] memory s) {
        s = new bytes[](2);
        (uint256 a, uint256 b) = vm.addr(0xC0) < vm.addr(0xC1) ? (0xC0, 0xC1) : (0xC1, 0xC0);
        s[0] = abi.encodePacked(vm.addr(a), sig(a, digest));
        s[1] = abi.encodePacked(vm.addr(b), sig(b, digest));
    }

    function _claim(uint8 stream, uint256 total, Vests.Plan plan, bytes32 sibling) private {
        bytes32[] memory proof = new bytes32[](1);
        proof[0] = sibling;
        vm.prank(stakers[stream]);
        try rewards.claim(stakers[stream], stream, total, plan, proof) {} catch {}
    }

    function release(uint256 seed) external {
        uint8 stream = uint8(mix(seed, 1));
        (,,, uint256 grants) = rewards.accountOf(stakers[stream], stream);
        if (grants == 0) return;
        uint256[] memory which = new uint256[](2);
        which[0] = which[1] = mix(seed, grants - 1);
        ++releases;
        rewards.release(stakers[stream], stream, which);
    }

    function time(uint256 seed) external {
        vm.warp(block.timestamp + 1 + mix(seed, mix(seed, 4) == 0 ? 200 days : 5 days));
    }

    function _leaf(address account, uint8 stream, uint256 total) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(account, stream, total))));
    }
}

/// Nothing is made or lost between stakes, rewards, emissions and penalties.
contract NetworkInvariants is Network {
    NetworkHandler internal handler;
    bytes32 internal second;

    function setUp() public override {
        super.setUp();
        vm.startPrank(owner);
        second = registry.registerContainer(host, "second", 1, "print");
        staking.commit(container);
        staking.commit(second);
        vm.stopPrank();
        handler = new NetworkHandler(ath, staking, slashing, rewards, emissions, [container, second], owner);
        for (uint256 i; i < 3; ++i) {
            ath.transfer(handler.stakers(i), 1_000_000_000e18);
            vm.prank(handler.stakers(i));
            ath.approve(address(staking), type(uint256).max);
            vm.prank(handler.stakers(i));
            staking.delegate(handler.stakers(i));
        }
        manager.grantRole(PROPOSER, address(handler), 0);
        manager.grantRole(COURT, address(handler), 0);
        for (uint256 i; i < 6; ++i) {
            handler.stake(i);
        }
        target(address(handler));
    }

    function invariant_supply_is_the_cap() public view {
        vm.assertEq(ath.totalSupply(), 42_000_000_000e18);
    }

    function invariant_stakes_are_what_came_in_less_what_went_out() public view {
        uint256 collateral = staking.collateralOf(container) + staking.collateralOf(second);
        uint256 slashed = staking.slashedOf(container) + staking.slashedOf(second);
        vm.assertEq(collateral, ath.balanceOf(address(staking)));
        vm.assertEq(collateral + slashed + handler.withdrawn(), handler.staked());
        vm.assertEq(bytes(handler.broken()).length, 0, handler.broken());
    }

    function invariant_positions_are_within_their_pool() public view {
        for (uint256 s; s < 2; ++s) {
            uint256 sum;
            for (uint256 i; i < 3; ++i) {
                (uint256 amount,) = staking.stakeOf(handler.subjects(s), handler.stakers(i));
                sum += amount;
            }
            (uint256 staked,) = staking.stakedOf(handler.subjects(s));
            vm.assertLe(sum, staked);
        }
    }

    function invariant_emissions_are_within_their_caps() public view {
        uint256 compute = emissions.drawn(0) + emissions.drawn(2);
        vm.assertLe(compute, emissions.granted());
        vm.assertLe(emissions.granted(), emissions.COMPUTE());
        vm.assertLe(emissions.drawn(1), emissions.CHECKER_POOL());
        vm.assertEq(
            ath.balanceOf(address(emissions)),
            emissions.COMPUTE() + emissions.CHECKER_POOL() - compute - emissions.drawn(1)
        );
    }

    function invariant_rewards_cover_what_is_pending_and_unclaimed() public view {
        uint256 owed;
        for (uint8 i; i < 2; ++i) {
            (, uint256 pending, uint256 debt,) = rewards.accountOf(handler.stakers(i), i);
            vm.assertLe(debt, pending);
            (uint64 total, uint64 claimed, uint64 withheld,,) = rewards.streams(i);
            owed += pending - debt + uint256(total - claimed + withheld) * 1e9;
        }
        vm.assertEq(ath.balanceOf(address(rewards)), owed);
    }

    function invariant_the_court_keeps_nothing() public view {
        vm.assertEq(ath.balanceOf(address(slashing)), 0);
    }
}
