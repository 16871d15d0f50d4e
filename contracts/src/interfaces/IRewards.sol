// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What others ask of the rewards.
interface IRewards {
    /// @notice Takes up to `amount` wei of an account's rewards that are claimed and not yet
    /// released, and sends it to the caller.
    /// @return taken what was taken
    function forfeit(address account, uint256 amount) external returns (uint256 taken);
}
