// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {Time} from "@openzeppelin/contracts/utils/types/Time.sol";

/// @title ATH at home.
/// @notice The whole supply is minted once; nobody can mint, burn for others, pause or block.
/// @dev Votes are counted by time: on Arbitrum `block.number` is the parent chain's.
contract Ath is ERC20, ERC20Permit, ERC20Votes {
    /// @notice All ATH that there will ever be.
    uint256 public constant SUPPLY = 42_000_000_000e18;

    /// @param holder who receives the supply
    constructor(address holder) ERC20("Aethir Token", "ATH") ERC20Permit("Aethir Token") {
        _mint(holder, SUPPLY);
    }

    /// @notice The clock of votes: seconds since 1970.
    function clock() public view override returns (uint48) {
        return Time.timestamp();
    }

    /// @notice Says what [`clock`] counts (ERC-6372).
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    /// @notice The next nonce of an account's permits and delegations.
    function nonces(address owner) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }

    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Votes) {
        super._update(from, to, value);
    }
}
