// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title Leaves of the Merkle trees that contracts check.
/// @notice All are hashed twice, so that no inner node can be shown as a leaf.
library Leaves {
    /// @notice A sub-lease of a statement and its cumulative sum in micros.
    function lease(bytes16 id, uint256 amount) internal pure returns (bytes32) {
        return _twice(abi.encode(id, amount));
    }

    /// @notice An account's cumulative reward in one stream.
    function reward(address account, uint8 stream, uint256 total) internal pure returns (bytes32) {
        return _twice(abi.encode(account, stream, total));
    }

    /// @notice The `index`-th entry of an airdrop.
    function drop(uint256 index, address account, uint256 amount) internal pure returns (bytes32) {
        return _twice(abi.encode(index, account, amount));
    }

    /// @notice A buyer's place on the allow-list of a sale's tier.
    function allowed(uint256 tier, address account, uint256 most) internal pure returns (bytes32) {
        return _twice(abi.encode(tier, account, most));
    }

    function _twice(bytes memory data) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(data)));
    }
}
