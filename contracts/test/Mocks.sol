// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IPriceOracle} from "../src/interfaces/IPriceOracle.sol";

/// A price that a test sets.
contract FixedOracle is IPriceOracle {
    uint256 public value;
    bool public stale;

    constructor(uint256 first) {
        value = first;
    }

    function set(uint256 next) external {
        value = next;
    }

    function setStale(bool yes) external {
        stale = yes;
    }

    function price() public view returns (uint256) {
        if (stale) revert Stale(1);
        return value;
    }

    function priceAt() external view returns (uint256, uint256) {
        return (price(), block.timestamp);
    }
}

/// A wallet that takes its owner's signature.
contract Wallet {
    address public immutable owner;

    constructor(address owner_) {
        owner = owner_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        (address who,,) = ECDSA.tryRecover(digest, signature);
        return who == owner ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}

/// A wallet that burns whatever gas it is given, or answers with rubbish.
contract HostileWallet {
    bool public burns;

    constructor(bool burns_) {
        burns = burns_;
    }

    fallback(bytes calldata) external returns (bytes memory) {
        uint256 x;
        while (burns) {
            unchecked {
                ++x;
            }
        }
        return new bytes(20_000);
    }
}
