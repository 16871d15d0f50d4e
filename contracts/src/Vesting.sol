// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {VestingWallet} from "@openzeppelin/contracts/finance/VestingWallet.sol";
import {VestingWalletCliff} from "@openzeppelin/contracts/finance/VestingWalletCliff.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";

/// @title Team's, investors' and advisers' ATH: linear, after a cliff.
/// @notice The beneficiary can vote with what is not released yet.
contract Vesting is VestingWalletCliff {
    /// @param beneficiary who receives it
    /// @param start when it begins, in seconds since 1970
    /// @param duration seconds until all is released
    /// @param cliff seconds before which nothing is
    constructor(address beneficiary, uint64 start, uint64 duration, uint64 cliff)
        VestingWallet(beneficiary, start, duration)
        VestingWalletCliff(cliff)
    {}

    /// @notice Delegates the votes of what is here, by the beneficiary.
    function delegate(IVotes token, address to) external onlyOwner {
        token.delegate(to);
    }
}
