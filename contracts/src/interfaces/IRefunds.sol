// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title What the court asks of the escrow.
interface IRefunds {
    /// @notice Gives back up to `micros` of what was paid for a lease.
    function refund(address buyer, address operator, bytes16 lease, uint64 micros, bytes32 reason) external;
}
