// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {ICustomToken, IL1CustomGateway} from "../../src/interfaces/arbitrum/ICustomToken.sol";
import {TestGatewayL2} from "./TestGatewayL2.sol";
import {TestInbox} from "./TestInbox.sol";

/// @title A custom gateway at home with Arbitrum's interface: keeps what is on the rollup.
contract TestGatewayL1 is IL1CustomGateway {
    using SafeERC20 for IERC20;

    /// @notice The way to the rollup and back.
    TestInbox public immutable inbox;
    /// @notice The router at home, whose word for who sends is taken.
    address public immutable router;
    /// @notice The gateway on the rollup.
    address public immutable counterpart;
    /// @notice A token's form on the rollup.
    mapping(address l1Token => address) public l1ToL2Token;

    /// @notice Not from the gateway on the rollup.
    error OnlyCounterpart();
    /// @notice The token can't be bridged so.
    error Token();

    constructor(TestInbox inbox_, address router_, address counterpart_) {
        (inbox, router, counterpart) = (inbox_, router_, counterpart_);
    }

    /// @inheritdoc IL1CustomGateway
    function registerTokenToL2(
        address l2Address,
        uint256 maxGas,
        uint256 gasPriceBid,
        uint256 maxSubmissionCost,
        address creditBackAddress
    ) external payable returns (uint256) {
        return _ticket(maxSubmissionCost, creditBackAddress, maxGas, gasPriceBid, _register(l2Address));
    }

    /// @notice Keeps `amount` of the sender and has it made on the rollup for `to`.
    /// @param data the submission's cost and further data; from the router, the sender before it
    function outboundTransfer(
        address l1Token,
        address to,
        uint256 amount,
        uint256 maxGas,
        uint256 gasPriceBid,
        bytes calldata data
    ) external payable returns (bytes memory) {
        address from = msg.sender;
        bytes memory rest = data;
        if (msg.sender == router) (from, rest) = abi.decode(data, (address, bytes));
        (uint256 cost, bytes memory extra) = abi.decode(rest, (uint256, bytes));
        if (l1ToL2Token[l1Token] == address(0)) revert Token();
        IERC20(l1Token).safeTransferFrom(from, address(this), amount);
        bytes memory call =
            abi.encodeCall(TestGatewayL2.finalizeInboundTransfer, (l1Token, from, to, amount, extra));
        return abi.encode(_ticket(cost, from, maxGas, gasPriceBid, call));
    }

    /// @notice Gives back what was destroyed on the rollup; only for the gateway there.
    function finalizeInboundTransfer(address l1Token, address, address to, uint256 amount, bytes calldata)
        external
    {
        if (msg.sender != address(inbox) || inbox.l2ToL1Sender() != counterpart) revert OnlyCounterpart();
        IERC20(l1Token).safeTransfer(to, amount);
    }

    /// @dev The message that makes the calling token known on the rollup.
    function _register(address l2Address) private returns (bytes memory) {
        if (ICustomToken(msg.sender).isArbitrumEnabled() != 0xb1) revert Token();
        address known = l1ToL2Token[msg.sender];
        if (known != address(0) && known != l2Address) revert Token();
        l1ToL2Token[msg.sender] = l2Address;
        address[] memory l1 = new address[](1);
        address[] memory l2 = new address[](1);
        (l1[0], l2[0]) = (msg.sender, l2Address);
        return abi.encodeCall(TestGatewayL2.registerTokenFromL1, (l1, l2));
    }

    function _ticket(uint256 cost, address from, uint256 gas, uint256 bid, bytes memory data)
        private
        returns (uint256)
    {
        return inbox.createRetryableTicket{value: msg.value}(counterpart, 0, cost, from, from, gas, bid, data);
    }
}
