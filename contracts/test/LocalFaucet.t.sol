// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {LocalFaucet} from "../src/local/LocalFaucet.sol";
import {EscrowBase} from "./EscrowBase.sol";

/// The faucet of a local network.
contract LocalFaucetTest is EscrowBase {
    function test_a_key_funds_once() public {
        LocalFaucet faucet = new LocalFaucet(IERC20(address(ath)), escrow, oracle, 5_000_000);
        ath.transfer(address(faucet), 1_000e18);
        faucet.fund(operator, 2_000_000, bytes16("key"));
        faucet.fund(operator, 2_000_000, bytes16("key"));
        vm.assertEq(balanceOf(operator), 40e18);
        vm.expectRevert(abi.encodeWithSelector(LocalFaucet.TooMuch.selector, 5_000_000));
        faucet.fund(operator, 5_000_001, bytes16("another"));
    }
}
