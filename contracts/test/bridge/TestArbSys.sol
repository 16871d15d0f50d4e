// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IArbSys} from "../../src/interfaces/arbitrum/IArbSys.sol";

/// @title The rollup's system contract at address 100, as far as messages home go.
contract TestArbSys is IArbSys {
    uint256 private _messages;

    /// @notice A message home.
    event L2ToL1Tx(address caller, address indexed destination, uint256 indexed position, bytes data);

    /// @inheritdoc IArbSys
    function sendTxToL1(address destination, bytes calldata data) external payable returns (uint256) {
        emit L2ToL1Tx(msg.sender, destination, _messages, data);
        return _messages++;
    }

    /// @inheritdoc IArbSys
    function arbBlockNumber() external view returns (uint256) {
        return block.number;
    }
}
