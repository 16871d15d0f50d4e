// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title How the 42e9 ATH are split, and how fast the compute share is emitted.
library Supply {
    uint256 internal constant TOTAL = 42_000_000_000e18;

    // Basis points of the total.
    uint256 internal constant COMPUTE_BPS = 3_500;
    uint256 internal constant CHECKERS_BPS = 1_500;
    uint256 internal constant TEAM_BPS = 1_250;
    uint256 internal constant INVESTORS_BPS = 1_150;
    uint256 internal constant TREASURY_BPS = 750;
    uint256 internal constant ECOSYSTEM_BPS = 750;
    uint256 internal constant AIRDROP_BPS = 600;
    uint256 internal constant ADVISERS_BPS = 500;

    /// @dev Each year emits this share of what the year before did.
    uint256 internal constant DECAY = 0.603e18;
    uint256 internal constant YEARS = 10;
    uint256 internal constant CHECKER_YEARS = 4;
    uint256 private constant ONE = 1e18;

    /// @notice What may be emitted for compute in all the years before `year`: a geometric series
    /// that reaches `pool` exactly after ten years.
    function cumulative(uint256 pool, uint256 year) internal pure returns (uint256) {
        if (year >= YEARS) return pool;
        return Math.mulDiv(pool, ONE - _power(year), ONE - _power(YEARS));
    }

    /// @notice What may be emitted for compute in one year, counted from 0.
    function ofYear(uint256 pool, uint256 year) internal pure returns (uint256) {
        return cumulative(pool, year + 1) - cumulative(pool, year);
    }

    function _power(uint256 n) private pure returns (uint256 result) {
        result = ONE;
        for (uint256 i; i < n; ++i) {
            result = result * DECAY / ONE;
        }
    }
}
