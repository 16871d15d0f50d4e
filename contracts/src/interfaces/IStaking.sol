// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What others ask of the stakes.
interface IStaking {
    /// @notice What penalties of a subject are measured by: what it committed to stake, or what it
    /// had before if that was more and is less than an exit's time ago.
    function requiredOf(bytes32 id) external view returns (uint256);

    /// @notice All that can still be slashed of a subject: staked and unbonding.
    function collateralOf(bytes32 id) external view returns (uint256);

    /// @notice Takes up to `amount` from a subject's collateral and sends it to the caller.
    /// @return taken what was taken: less where the collateral or the period's cap is less
    function slash(bytes32 id, uint256 amount) external returns (uint256 taken);
}
