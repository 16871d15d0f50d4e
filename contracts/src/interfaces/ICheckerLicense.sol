// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What others ask about licences.
interface ICheckerLicense {
    /// @notice Who runs a licence: its user while the delegation lasts, else its owner; zero while
    /// it is banned or if there is none.
    function runnerOf(uint256 licence) external view returns (address);
}
