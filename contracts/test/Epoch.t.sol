// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Vests} from "../src/libraries/Vests.sol";
import {Network} from "./Network.sol";

/// What `crates/ledger/src/epoch` computes, by the contracts: its tests have the same numbers.
contract EpochTest is Network {
    function test_pools_of_a_history() public {
        uint256[6] memory units = [uint256(0), 1_000_000, 10, 0, 0, 2_000_000_000];
        uint256[6] memory pools = [
            uint256(16091039233066732042959958),
            14481935309760058838663962,
            15930128840736064722530358,
            14337115956662458250277322,
            12903404360996212425249589,
            11613063924896591182724630
        ];
        vm.assertEq(emissions.capOfYear(0), 5873229320069357195680384979);
        vm.assertEq(emissions.capOfYear(9), 61906003431769833011086635);
        vm.assertEq(emissions.room(2), 804551961653336602147997);
        for (uint32 n = 1; n <= 6; ++n) {
            vm.assertEq(emissions.pool(), pools[n - 1]);
            vm.warp(emissions.epochEnd(n));
            if (n == 1) vm.assertEq(emissions.room(1), 4315068493150684931506849);
            vm.prank(address(rewards));
            emissions.advance(units[n - 1]);
        }
        vm.warp(emissions.epochEnd(91));
        vm.assertEq(emissions.room(1), 392671232876712328767123287);
    }

    function test_a_claim_by_the_proof_of_the_ledger() public {
        bytes32[] memory proof = new bytes32[](2);
        proof[0] = 0x7e0eacd85126ffc645f876cb16cc91279e3f099ff7eede279bf381390e43f785;
        proof[1] = 0x4482f034796d9eb9d1092cfc90ca0b9bc5bff3836baa63f704fd9e28fd1d95d8;
        bytes32 root = 0xea349b217b653a97c9514d6a9d26085ca523ae9e0f0331d643297264d552569b;
        address account = address(uint160(0x1111111111111111111111111111111111111111));
        vm.assertEq(
            _leaf(account, 0, 50e18), 0xc9e2f5ff1d4f27420d4098f579f25f34b8e54259dc8169a576656b0b63c872c3
        );
        _count(_epoch(1, root, 173_456_789_124e9, 40e18, 7e9));
        rewards.claim(account, 0, 50e18, Vests.Plan.Host, proof);
        (uint256 claimed,,,) = rewards.accountOf(account, 0);
        vm.assertEq(claimed, 50e18);
    }
}
