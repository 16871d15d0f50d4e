// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

/// @title Shares of a sum that is only ever cut, never raised from outside.
/// @notice A share is worth at most one unit, so that nobody can make it dear to round others
/// down. All rounding is in favour of the pool.
library Pools {
    using SafeCast for uint256;

    /// @dev One slot. When everything was cut, a new round begins: older shares are worth nothing.
    struct Pool {
        uint112 tokens;
        uint112 shares;
        uint32 round;
    }

    /// @notice Adds tokens; the shares that stand for them.
    function join(Pool storage pool, uint256 amount) internal returns (uint256 shares) {
        (uint256 tokens, uint256 all) = (pool.tokens, pool.shares);
        shares = all == 0 ? amount : amount * all / tokens;
        (pool.tokens, pool.shares) = ((tokens + amount).toUint112(), (all + shares).toUint112());
    }

    /// @notice Takes shares out; the tokens that they are worth.
    function leave(Pool storage pool, uint256 shares) internal returns (uint256 amount) {
        (uint256 tokens, uint256 all) = (pool.tokens, pool.shares);
        amount = shares == all ? tokens : shares * tokens / all;
        (pool.tokens, pool.shares) = (uint112(tokens - amount), uint112(all - shares));
    }

    /// @notice Cuts the sum; all shares lose in proportion.
    function cut(Pool storage pool, uint256 amount) internal {
        if (amount == 0) return;
        pool.tokens -= amount.toUint112();
        if (pool.tokens == 0) (pool.shares, pool.round) = (0, pool.round + 1);
    }

    /// @notice What shares are worth.
    function worth(Pool storage pool, uint256 shares) internal view returns (uint256) {
        return shares == 0 ? 0 : shares * pool.tokens / pool.shares;
    }
}
