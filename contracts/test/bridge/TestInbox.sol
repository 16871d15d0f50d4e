// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IInbox} from "../../src/interfaces/arbitrum/IInbox.sol";

/// @title Arbitrum's inbox and outbox at home, with a test as the rollup.
/// @notice A message to the rollup is an event; one from there is carried out by the relayer, once, in
/// the name of who sent it.
contract TestInbox is IInbox {
    /// @notice Who carries messages between the chains.
    address public immutable relayer;
    /// @notice Whose message from the rollup is being carried out.
    address public l2ToL1Sender;
    /// @notice Messages to the rollup so far.
    uint256 public tickets;

    mapping(uint256 index => bool) private _spent;

    /// @notice A message to the rollup.
    event Ticket(uint256 indexed id, address indexed from, address to, uint256 value, bytes data);

    /// @notice Not the relayer.
    error NotRelayer();
    /// @notice The sent value does not pay for the message.
    error InsufficientValue(uint256 expected, uint256 actual);
    /// @notice The message was carried out before.
    error AlreadySpent(uint256 index);
    /// @notice What the message calls reverts.
    error BridgeCallFailed(bytes why);

    constructor(address relayer_) {
        relayer = relayer_;
    }

    /// @inheritdoc IInbox
    function createRetryableTicket(
        address to,
        uint256 l2CallValue,
        uint256 maxSubmissionCost,
        address,
        address,
        uint256 gasLimit,
        uint256 maxFeePerGas,
        bytes calldata data
    ) external payable returns (uint256) {
        uint256 expected = maxSubmissionCost + l2CallValue + gasLimit * maxFeePerGas;
        if (msg.value < expected) revert InsufficientValue(expected, msg.value);
        emit Ticket(++tickets, msg.sender, to, l2CallValue, data);
        return tickets;
    }

    /// @notice Carries out a message of `l2Sender`.
    function executeTransaction(uint256 index, address l2Sender, address to, bytes calldata data) external {
        if (msg.sender != relayer) revert NotRelayer();
        if (_spent[index]) revert AlreadySpent(index);
        _spent[index] = true;
        l2ToL1Sender = l2Sender;
        (bool ok, bytes memory answer) = to.call(data);
        if (!ok) revert BridgeCallFailed(answer);
        l2ToL1Sender = address(0);
    }
}
