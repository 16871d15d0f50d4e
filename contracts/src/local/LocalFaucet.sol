// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Escrow} from "../Escrow.sol";
import {IPriceOracle} from "../interfaces/IPriceOracle.sol";
import {Money} from "../libraries/Money.sol";

/// @title Play money for a local network. Never deployed where ATH has a price.
/// @notice Funds escrow accounts from its own ATH for whoever asks.
contract LocalFaucet {
    using SafeERC20 for IERC20;

    /// @notice ATH.
    IERC20 public immutable token;
    /// @notice Where accounts are funded.
    Escrow public immutable escrow;
    /// @notice The rate.
    IPriceOracle public immutable oracle;
    /// @notice The most micros at once.
    uint64 public immutable maxMicros;

    /// @notice Whether a key has been carried out.
    mapping(bytes16 key => bool) public done;

    /// @notice An account was funded.
    event Funded(address indexed account, uint256 micros, bytes16 key);

    /// @notice More than the faucet gives at once.
    error TooMuch(uint64 most);

    /// @param token_ ATH
    /// @param escrow_ where accounts are funded
    /// @param oracle_ the rate
    /// @param maxMicros_ the most micros at once
    constructor(IERC20 token_, Escrow escrow_, IPriceOracle oracle_, uint64 maxMicros_) {
        (token, escrow, oracle, maxMicros) = (token_, escrow_, oracle_, maxMicros_);
        token_.forceApprove(address(escrow_), type(uint256).max);
    }

    /// @notice Deposits `micros` worth of ATH into `account`. The same key again changes nothing.
    function fund(address account, uint64 micros, bytes16 key) external {
        if (done[key]) return;
        if (micros > maxMicros) revert TooMuch(maxMicros);
        done[key] = true;
        emit Funded(account, micros, key);
        escrow.deposit(account, Money.toWei(micros, oracle.price()));
    }
}
