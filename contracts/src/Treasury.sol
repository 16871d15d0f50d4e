// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title The timelock that holds the fees and administers the access manager.
contract Treasury is TimelockController {
    /// @param delay seconds between queueing and executing
    /// @param proposers who may queue; the governor
    /// @param executors who may execute; the zero address is everybody
    /// @param admin who sets the governor up and then renounces
    constructor(uint256 delay, address[] memory proposers, address[] memory executors, address admin)
        TimelockController(delay, proposers, executors, admin)
    {}
}
