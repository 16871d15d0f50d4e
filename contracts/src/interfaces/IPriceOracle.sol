// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What one ATH costs.
/// @notice USD per ATH with 18 decimals. Both views revert where no price can be vouched for, so
/// that settling halts and never pays at a wrong rate.
interface IPriceOracle {
    /// @notice The last price is older than the oracle allows.
    /// @param updatedAt when it was last updated, in seconds since 1970; 0 if never
    error Stale(uint256 updatedAt);

    /// @notice The price.
    /// @return USD per ATH, 18 decimals, never 0
    function price() external view returns (uint256);

    /// @notice The price and its time.
    /// @return price USD per ATH, 18 decimals, never 0
    /// @return updatedAt seconds since 1970
    function priceAt() external view returns (uint256 price, uint256 updatedAt);
}
