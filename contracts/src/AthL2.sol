// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {Time} from "@openzeppelin/contracts/utils/types/Time.sol";

import {IArbToken} from "./interfaces/arbitrum/IArbToken.sol";
import {Supply} from "./libraries/Supply.sol";

/// @title ATH on the rollup: made and destroyed by Arbitrum's custom gateway alone.
contract AthL2 is IArbToken, ERC20, ERC20Permit, ERC20Votes {
    /// @notice The gateway on the rollup.
    address public immutable gateway;
    /// @inheritdoc IArbToken
    address public immutable l1Address;

    /// @notice Not the gateway.
    error NotGateway();
    /// @notice More than there is at home.
    error OverSupply();

    /// @param gateway_ the custom gateway on the rollup
    /// @param l1Address_ ATH at home
    constructor(address gateway_, address l1Address_)
        ERC20("Aethir Token", "ATH")
        ERC20Permit("Aethir Token")
    {
        (gateway, l1Address) = (gateway_, l1Address_);
    }

    /// @inheritdoc IArbToken
    function bridgeMint(address account, uint256 amount) external {
        if (msg.sender != gateway) revert NotGateway();
        if (totalSupply() + amount > Supply.TOTAL) revert OverSupply();
        _mint(account, amount);
    }

    /// @inheritdoc IArbToken
    function bridgeBurn(address account, uint256 amount) external {
        if (msg.sender != gateway) revert NotGateway();
        _burn(account, amount);
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
