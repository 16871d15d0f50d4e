// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title Amounts: USD micros, ATH wei, basis points.
/// @notice One rounding rule: down. What is rounded off stays where it was.
library Money {
    /// @dev The most that one order may cost: 1e15 micros, a billion dollars.
    uint256 internal constant MAX_MICROS = 1e15;
    /// @dev Basis points of a whole.
    uint256 internal constant BPS = 10_000;
    /// @dev 1e12 micros to 18 decimals, times 1e18 for the price's decimals.
    uint256 private constant SCALE = 1e30;

    /// @notice ATH wei for a sum in USD micros.
    /// @param micros at most [`MAX_MICROS`] times a few; no overflow up to 1e46
    /// @param price USD per ATH, 18 decimals
    function toWei(uint256 micros, uint256 price) internal pure returns (uint256) {
        return micros * SCALE / price;
    }

    /// @notice USD micros for a sum in ATH wei. `toWei(toMicros(w)) <= w` always.
    /// @param amount ATH wei
    /// @param price USD per ATH, 18 decimals
    function toMicros(uint256 amount, uint256 price) internal pure returns (uint256) {
        return amount * price / SCALE;
    }

    /// @notice An amount and a share of it on top, in basis points.
    function withShare(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount + share(amount, bps);
    }

    /// @notice A share in basis points.
    function share(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount * bps / BPS;
    }
}
