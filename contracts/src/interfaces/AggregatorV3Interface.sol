// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title The part of a Chainlink feed that is used.
interface AggregatorV3Interface {
    /// @notice Decimals of an answer.
    function decimals() external view returns (uint8);

    /// @notice The newest answer.
    function latestRoundData()
        external
        view
        returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound);
}
