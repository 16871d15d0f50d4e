// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title How claims vest.
library Vests {
    /// @notice Hosts and indexers: 30 % at once, 30 % after 90 days, 40 % after 180 days.
    /// Checkers: all after 180 days, or a quarter after 30 days.
    enum Plan {
        Host,
        Checker,
        CheckerFast
    }

    /// @dev What the fast plan leaves, in basis points.
    uint256 internal constant FAST_BPS = 2_500;

    /// @notice What of a grant is due after `passed` seconds.
    function vested(Plan plan, uint256 amount, uint256 passed) internal pure returns (uint256) {
        if (plan == Plan.Checker) return passed >= 180 days ? amount : 0;
        if (plan == Plan.CheckerFast) return passed >= 30 days ? amount : 0;
        if (passed >= 180 days) return amount;
        return amount * (passed >= 90 days ? 60 : 30) / 100;
    }
}
