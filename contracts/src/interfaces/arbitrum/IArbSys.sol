// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title The part of the rollup's system contract at address 100 that is used.
interface IArbSys {
    /// @notice Sends a message home, executable there after the challenge period.
    function sendTxToL1(address destination, bytes calldata data) external payable returns (uint256);

    /// @notice The rollup's own block number.
    function arbBlockNumber() external view returns (uint256);
}
