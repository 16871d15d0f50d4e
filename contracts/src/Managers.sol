// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

// Deployed unmodified: the one place where roles are kept.
import {AccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";
