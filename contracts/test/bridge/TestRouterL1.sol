// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICustomToken, IL1GatewayRouter} from "../../src/interfaces/arbitrum/ICustomToken.sol";
import {TestGatewayL1} from "./TestGatewayL1.sol";
import {TestInbox} from "./TestInbox.sol";

/// @title A gateway router at home with Arbitrum's interface.
contract TestRouterL1 is IL1GatewayRouter {
    /// @notice The way to the rollup.
    TestInbox public immutable inbox;
    /// @notice The router on the rollup.
    address public immutable counterpart;
    /// @notice A token's gateway.
    mapping(address l1Token => address) public getGateway;

    /// @notice The token can't be routed so.
    error Token();

    constructor(TestInbox inbox_, address counterpart_) {
        (inbox, counterpart) = (inbox_, counterpart_);
    }

    /// @inheritdoc IL1GatewayRouter
    function setGateway(
        address gateway,
        uint256 maxGas,
        uint256 gasPriceBid,
        uint256 maxSubmissionCost,
        address creditBackAddress
    ) external payable returns (uint256) {
        if (ICustomToken(msg.sender).isArbitrumEnabled() != 0xb1 || gateway.code.length == 0) revert Token();
        if (TestGatewayL1(gateway).l1ToL2Token(msg.sender) == address(0)) revert Token();
        getGateway[msg.sender] = gateway;
        return inbox.createRetryableTicket{value: msg.value}(
            counterpart, 0, maxSubmissionCost, creditBackAddress, creditBackAddress, maxGas, gasPriceBid, ""
        );
    }

    /// @notice Sends `amount` through the token's gateway.
    function outboundTransfer(
        address l1Token,
        address to,
        uint256 amount,
        uint256 maxGas,
        uint256 gasPriceBid,
        bytes calldata data
    ) external payable returns (bytes memory) {
        address gateway = getGateway[l1Token];
        if (gateway == address(0)) revert Token();
        return TestGatewayL1(gateway).outboundTransfer{value: msg.value}(
            l1Token, to, amount, maxGas, gasPriceBid, abi.encode(msg.sender, data)
        );
    }
}
