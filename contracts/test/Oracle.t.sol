// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Ath} from "../src/Ath.sol";
import {IPriceOracle} from "../src/interfaces/IPriceOracle.sol";
import {MedianOracle} from "../src/oracles/MedianOracle.sol";
import {T} from "./T.sol";

/// The median of reporters: who is heard, how far it moves, when it is stale.
contract MedianOracleTest is T {
    Ath internal ath;
    AccessManager internal manager;
    MedianOracle internal oracle;
    address internal treasury = address(0x7EA);

    function setUp() public {
        vm.warp(1_800_000_000);
        ath = new Ath(address(this));
        manager = new AccessManager(address(this));
        address[] memory who = new address[](3);
        (who[0], who[1], who[2]) = (address(1001), address(1002), address(1003));
        MedianOracle.Limits memory limits = MedianOracle.Limits(1 hours, 60, 1_000, 2);
        oracle = new MedianOracle(IERC20(address(ath)), treasury, address(manager), 100e18, limits, who);
        ath.approve(address(oracle), type(uint256).max);
        for (uint256 i; i < 3; ++i) {
            oracle.postBond(who[i], 100e18);
        }
    }

    function say(uint160 who, uint256 price) internal {
        vm.prank(address(who));
        oracle.report(price);
    }

    function test_the_median_needs_enough_fresh_reports() public {
        say(1001, 0.05e18);
        vm.expectRevert(abi.encodeWithSelector(IPriceOracle.Stale.selector, 0));
        oracle.price();
        say(1002, 0.07e18);
        vm.assertEq(oracle.price(), 0.06e18);
        vm.warp(block.timestamp + 60);
        say(1003, 9e18);
        vm.assertEq(oracle.price(), 0.066e18);
        vm.warp(block.timestamp + 1 hours + 1);
        vm.expectPartialRevert(IPriceOracle.Stale.selector);
        oracle.price();
        say(1001, 0.05e18);
        vm.expectPartialRevert(IPriceOracle.Stale.selector);
        oracle.price();
    }

    function testFuzz_the_price_moves_by_a_bounded_share(uint256 next, uint256 passed) public {
        next = bound(next, 1, 1e36);
        passed = bound(passed, 0, 1 hours);
        say(1001, 1e18);
        say(1002, 1e18);
        vm.warp(block.timestamp + passed);
        say(1001, next);
        say(1002, next);
        uint256 steps = passed < 60 ? 0 : passed / 60;
        uint256 most = 1e18 * steps / 10;
        vm.assertLe(oracle.price(), 1e18 + most);
        vm.assertGe(oracle.price(), most >= 1e18 ? 1 : 1e18 - most);
    }

    function test_Reverts_When_a_reporter_is_not_bonded_or_gone() public {
        vm.expectRevert(MedianOracle.NotReporter.selector);
        oracle.report(1e18);
        oracle.slash(address(1001), 50e18, "lied");
        vm.assertEq(ath.balanceOf(treasury), 50e18);
        vm.expectRevert(MedianOracle.NotReporter.selector);
        say(1001, 1e18);
        vm.prank(address(1002));
        oracle.leave();
        vm.expectRevert(MedianOracle.NotReporter.selector);
        say(1002, 1e18);
        vm.warp(block.timestamp + 20 days);
        oracle.slash(address(1002), 50e18, "left and not withdrawn");
        vm.prank(address(1002));
        oracle.withdrawBond();
        vm.assertEq(ath.balanceOf(address(1002)), 50e18);
    }
}
