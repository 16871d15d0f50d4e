// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IAccessManager} from "@openzeppelin/contracts/access/manager/IAccessManager.sol";
import {VestingWallet} from "@openzeppelin/contracts/finance/VestingWallet.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {Airdrop} from "../src/Airdrop.sol";
import {AthL1} from "../src/AthL1.sol";
import {AthL2} from "../src/AthL2.sol";
import {CheckerLicense} from "../src/CheckerLicense.sol";
import {Registry} from "../src/Registry.sol";
import {Vesting} from "../src/Vesting.sol";
import {AggregatorV3Interface} from "../src/interfaces/AggregatorV3Interface.sol";
import {IPriceOracle} from "../src/interfaces/IPriceOracle.sol";
import {IL1CustomGateway, IL1GatewayRouter} from "../src/interfaces/arbitrum/ICustomToken.sol";
import {FeedOracle} from "../src/oracles/FeedOracle.sol";
import {Network} from "./Network.sol";

/// A feed of Chainlink's shape.
contract Feed is AggregatorV3Interface {
    int256 public answer;
    uint256 public startedAt;
    uint256 public updatedAt;
    uint8 public immutable decimals;

    constructor(uint8 decimals_) {
        decimals = decimals_;
    }

    function set(int256 answer_, uint256 startedAt_, uint256 updatedAt_) external {
        (answer, startedAt, updatedAt) = (answer_, startedAt_, updatedAt_);
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return (1, answer, startedAt, updatedAt, 1);
    }
}

/// Gateway and router at home in one.
contract Gateways {
    address public l2;
    address public routed;

    function registerTokenToL2(address l2_, uint256, uint256, uint256, address)
        external
        payable
        returns (uint256)
    {
        l2 = l2_;
        return 1;
    }

    function setGateway(address gateway, uint256, uint256, uint256, address)
        external
        payable
        returns (uint256)
    {
        routed = gateway;
        return 2;
    }
}

/// Licences, governance, the feed, the rollup's token, the founding groups.
contract OthersTest is Network {
    bytes32[] internal nothing;

    function _sale(uint32 supply, uint32 most, bytes32 root) internal {
        licenses.addTier(CheckerLicense.Tier(500_000_000, supply, 0, most, uint48(NOW), root));
        ath.approve(address(licenses), type(uint256).max);
    }

    function test_a_sale_has_tiers_limits_and_a_price() public {
        _sale(5, 4, 0);
        uint256 before = ath.balanceOf(address(treasury));
        vm.expectRevert(abi.encodeWithSelector(CheckerLicense.TooDear.selector, 30_000e18));
        licenses.buy(0, 3, 29_999e18, 0, nothing);
        licenses.buy(0, 3, 30_000e18, 0, nothing);
        vm.assertEq(ath.balanceOf(address(treasury)), before + 30_000e18);
        vm.assertEq(licenses.ownerOf(3), address(this));
        vm.expectRevert(CheckerLicense.SoldOut.selector);
        licenses.buy(0, 2, 30_000e18, 0, nothing);
        vm.prank(buyer);
        vm.expectRevert(CheckerLicense.SoldOut.selector);
        licenses.buy(0, 3, 30_000e18, 0, nothing);
    }

    function test_an_allow_list_gives_each_its_number() public {
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(uint256(0), address(this), uint256(2)))));
        (bytes32 root, bytes32[] memory proof) = _tree(leaf, 4);
        _sale(100, 0, root);
        vm.expectRevert(CheckerLicense.NotAllowed.selector);
        licenses.buy(0, 3, type(uint256).max, 3, proof);
        licenses.buy(0, 2, type(uint256).max, 2, proof);
        vm.expectRevert(CheckerLicense.SoldOut.selector);
        licenses.buy(0, 1, type(uint256).max, 2, proof);
        vm.prank(buyer);
        vm.expectRevert(CheckerLicense.NotAllowed.selector);
        licenses.buy(0, 1, type(uint256).max, 2, proof);
    }

    function test_there_are_never_more_than_the_cap() public {
        _sale(100_000, 100_000, 0);
        bytes32 slot = bytes32(uint256(7));
        vm.store(address(licenses), slot, bytes32(uint256(99_999)));
        vm.assertEq(licenses.minted(), 99_999);
        vm.expectRevert(CheckerLicense.SoldOut.selector);
        licenses.buy(0, 2, type(uint256).max, 0, nothing);
        licenses.buy(0, 1, type(uint256).max, 0, nothing);
        vm.assertEq(licenses.ownerOf(100_000), address(this));
    }

    function test_a_licence_is_run_by_its_user_and_banned_after_no_appeal() public {
        _sale(5, 5, 0);
        licenses.buy(0, 2, type(uint256).max, 0, nothing);
        licenses.setUser(1, operator, uint64(NOW + 1 days));
        vm.assertEq(licenses.runnerOf(1), operator);
        vm.prank(operator);
        registry.setChecker(1, "node");
        (bytes32 node, address runner) = registry.checkerOf(1);
        vm.assertEq(node, bytes32("node"));
        vm.assertEq(runner, operator);
        vm.expectRevert(Registry.NotRunner.selector);
        registry.setChecker(1, "mine");
        licenses.suspend(1, "lied");
        vm.assertEq(licenses.runnerOf(1), address(0));
        (node,) = registry.checkerOf(1);
        vm.assertEq(node, bytes32(0));
        vm.warp(NOW + 14 days + 1);
        vm.assertTrue(licenses.standingOf(1) == CheckerLicense.Standing.Banned);
        vm.expectRevert(CheckerLicense.WrongStanding.selector);
        licenses.appeal(1, "too late");
        licenses.decide(1, false);
        vm.assertEq(licenses.runnerOf(1), address(this));
        licenses.suspend(2, "lied");
        licenses.appeal(2, "no");
        vm.warp(block.timestamp + 30 days + 1);
        vm.assertTrue(licenses.standingOf(2) == CheckerLicense.Standing.Good);
    }

    function test_licences_are_locked_until_their_date_and_lose_their_user() public {
        _sale(5, 5, 0);
        licenses.buy(0, 1, type(uint256).max, 0, nothing);
        vm.expectRevert(CheckerLicense.Locked.selector);
        licenses.transferFrom(address(this), buyer, 1);
        vm.warp(NOW + 366 days);
        licenses.setUser(1, operator, uint64(NOW + 900 days));
        licenses.suspend(1, "lied");
        vm.expectRevert(CheckerLicense.Locked.selector);
        licenses.transferFrom(address(this), buyer, 1);
        licenses.decide(1, false);
        licenses.transferFrom(address(this), buyer, 1);
        vm.assertEq(licenses.userOf(1), address(0));
        vm.assertEq(licenses.runnerOf(1), buyer);
    }

    function test_held_and_staked_votes_decide_together() public {
        manager.grantRole(0, address(treasury), 0);
        manager.renounceRole(0, address(this));
        ath.transfer(owner, 600_000_000e18);
        vm.startPrank(owner);
        staking.delegate(owner);
        staking.stake(container, 600_000_000e18);
        vm.stopPrank();
        ath.delegate(address(this));
        vm.warp(block.timestamp + 1);
        address[] memory t = new address[](1);
        uint256[] memory v = new uint256[](1);
        bytes[] memory d = new bytes[](1);
        t[0] = address(manager);
        d[0] =
            abi.encodeCall(IAccessManager.execute, (address(escrow), abi.encodeCall(escrow.setFee, (1_500))));
        uint256 id = governor.propose(t, v, d, "fee to 15 %");
        vm.assertEq(governor.quorum(block.timestamp - 1), 1_680_000_000e18);
        vm.warp(block.timestamp + 1 days + 1);
        governor.castVote(id, 1);
        vm.prank(owner);
        governor.castVote(id, 1);
        (, uint256 forVotes,) = governor.proposalVotes(id);
        vm.assertEq(forVotes, ath.balanceOf(address(this)) + 600_000_000e18);
        vm.warp(block.timestamp + 5 days + 1);
        governor.queue(t, v, d, keccak256("fee to 15 %"));
        vm.expectRevert();
        governor.execute(t, v, d, keccak256("fee to 15 %"));
        vm.warp(block.timestamp + 2 days + 1);
        governor.execute(t, v, d, keccak256("fee to 15 %"));
        vm.assertEq(escrow.feeBps(), 1_500);
        vm.expectRevert();
        escrow.setFee(0);
    }

    function test_the_guardian_can_only_pause() public {
        address guardian = address(0x60A);
        manager.grantRole(GUARDIAN, guardian, 0);
        manager.revokeRole(GUARDIAN, address(this));
        vm.startPrank(guardian);
        escrow.pause(1 days);
        escrow.unpause();
        vm.expectRevert();
        escrow.setFee(1);
        vm.expectRevert();
        manager.grantRole(GUARDIAN, address(1), 0);
        vm.expectRevert();
        staking.slash(container, 1);
    }

    function test_a_feed_is_believed_within_bounds() public {
        Feed feed = new Feed(8);
        Feed uptime = new Feed(0);
        FeedOracle.Bounds memory b = FeedOracle.Bounds(0.001e18, 10e18, 1 hours, 1 hours);
        FeedOracle o = new FeedOracle(feed, uptime, address(manager), b);
        feed.set(5_000_000, 1, NOW);
        vm.expectRevert(abi.encodeWithSelector(FeedOracle.SequencerDown.selector, 0));
        o.price();
        uptime.set(0, NOW - 1 hours, NOW);
        vm.assertEq(o.price(), 0.05e18);
        uptime.set(0, NOW - 1 hours + 1, NOW);
        vm.expectPartialRevert(FeedOracle.SequencerDown.selector);
        o.price();
        uptime.set(1, NOW - 9 hours, NOW);
        vm.expectPartialRevert(FeedOracle.SequencerDown.selector);
        o.price();
        uptime.set(0, NOW - 9 hours, NOW);
        feed.set(5_000_000, 1, NOW - 1 hours - 1);
        vm.expectPartialRevert(IPriceOracle.Stale.selector);
        o.price();
        feed.set(5_000_000, 1, NOW + 1);
        vm.expectPartialRevert(IPriceOracle.Stale.selector);
        o.price();
        int256[4] memory bad = [int256(0), -1, 99_999, type(int256).max];
        for (uint256 i; i < 4; ++i) {
            feed.set(bad[i], 1, NOW);
            vm.expectPartialRevert(FeedOracle.Unbelievable.selector);
            o.price();
        }
    }

    function test_only_the_gateway_makes_ath_on_the_rollup() public {
        AthL2 l2 = new AthL2(address(0x6A7E), address(ath));
        vm.expectRevert(AthL2.NotGateway.selector);
        l2.bridgeMint(buyer, 1);
        vm.startPrank(address(0x6A7E));
        l2.bridgeMint(buyer, 42_000_000_000e18);
        vm.expectRevert(AthL2.OverSupply.selector);
        l2.bridgeMint(buyer, 1);
        l2.bridgeBurn(buyer, 2e18);
        vm.stopPrank();
        vm.expectRevert(AthL2.NotGateway.selector);
        l2.bridgeBurn(buyer, 1);
        vm.assertEq(l2.totalSupply(), 42_000_000_000e18 - 2e18);
        vm.assertEq(l2.l1Address(), address(ath));
    }

    function test_ath_at_home_is_tied_to_the_rollup_once() public {
        Gateways g = new Gateways();
        AthL1 l1 = new AthL1(buyer, IL1CustomGateway(address(g)), IL1GatewayRouter(address(g)), address(this));
        vm.assertEq(l1.isArbitrumEnabled(), 0xb1);
        vm.prank(buyer);
        vm.expectRevert(AthL1.NotRegistrar.selector);
        l1.registerTokenOnL2(address(7), 1, 1, 1, 1, 1, 0, 0, buyer);
        l1.registerTokenOnL2(address(7), 1, 1, 1, 1, 1, 0, 0, buyer);
        vm.assertEq(g.l2(), address(7));
        vm.assertEq(g.routed(), address(g));
        vm.expectRevert(AthL1.NotRegistrar.selector);
        l1.registerTokenOnL2(address(8), 1, 1, 1, 1, 1, 0, 0, buyer);
    }

    function test_vesting_begins_after_its_cliff_and_votes_before() public {
        Vesting v = new Vesting(buyer, uint64(NOW), 1_000 days, 365 days);
        ath.transfer(address(v), 1_000e18);
        vm.warp(NOW + 364 days);
        v.release(address(ath));
        vm.assertEq(v.released(address(ath)), 0);
        vm.prank(buyer);
        v.delegate(IVotes(address(ath)), buyer);
        vm.assertEq(ath.getVotes(buyer), 1_000e18);
        vm.expectRevert();
        v.delegate(IVotes(address(ath)), address(this));
        vm.warp(NOW + 500 days);
        v.release(address(ath));
        vm.assertEq(v.released(address(ath)), 500e18);
    }

    function test_an_airdrop_pays_each_once_until_its_end() public {
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(uint256(3), operator, uint256(7e18)))));
        (bytes32 root, bytes32[] memory proof) = _tree(leaf, 6);
        Airdrop drop = new Airdrop(IERC20(address(ath)), root, address(treasury), uint48(NOW + 30 days));
        ath.transfer(address(drop), 100e18);
        vm.expectRevert(Airdrop.Proof.selector);
        drop.claim(3, buyer, 7e18, proof);
        drop.claim(3, operator, 7e18, proof);
        vm.assertEq(ath.balanceOf(operator), 7e18);
        vm.expectRevert(Airdrop.Done.selector);
        drop.claim(3, operator, 7e18, proof);
        vm.expectPartialRevert(Airdrop.NotYet.selector);
        drop.sweep();
        vm.warp(NOW + 30 days + 1);
        vm.expectRevert(Airdrop.Over.selector);
        drop.claim(3, operator, 7e18, proof);
        drop.sweep();
        vm.assertEq(ath.balanceOf(address(drop)), 0);
    }
}
