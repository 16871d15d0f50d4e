// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Members that sign epochs together.
abstract contract Committee is EIP712 {
    /// @notice What the committee signs.
    /// @param number of the epoch, counted from 1
    /// @param root of the leaves (account, stream, total since the beginning)
    /// @param data hash of the published leaves, so that anybody can compute the root again
    /// @param totals of the streams since the beginning, in wei: hosts, checkers, indexers
    /// @param units of capacity that were active
    struct Epoch {
        uint32 number;
        bytes32 root;
        bytes32 data;
        uint256[3] totals;
        uint256 units;
    }

    bytes32 private constant EPOCH_TYPEHASH =
        keccak256("Epoch(uint32 number,bytes32 root,bytes32 data,uint256[3] totals,uint256 units)");
    /// @notice The most members.
    uint256 public constant MEMBERS_MAX = 32;

    /// @notice How many must sign.
    uint256 public threshold;
    address[] private _members;
    mapping(address member => bool) private _isMember;

    /// @notice Another committee signs from now on.
    event CommitteeSet(address[] members, uint256 threshold);

    /// @notice Too few members, the wrong ones, twice the same, or not sorted.
    error Signatures();
    /// @notice A committee of this size or threshold is not allowed.
    error CommitteeSize();

    constructor() EIP712("Welkin Rewards", "1") {}

    /// @notice The members.
    function members() external view returns (address[] memory) {
        return _members;
    }

    /// @notice The digest that members sign.
    function epochHash(Epoch memory epoch_) public view returns (bytes32) {
        bytes32 sums = keccak256(abi.encode(epoch_.totals));
        return _hashTypedDataV4(
            keccak256(abi.encode(EPOCH_TYPEHASH, epoch_.number, epoch_.root, epoch_.data, sums, epoch_.units))
        );
    }

    /// @dev Each signature is a signer's address (20 bytes) and its signature (ECDSA or EIP-1271).
    function _checkSigned(bytes32 digest, bytes[] calldata signatures) internal view {
        if (signatures.length < threshold) revert Signatures();
        address last;
        for (uint256 i; i < signatures.length; ++i) {
            bytes calldata s = signatures[i];
            if (s.length < 20) revert Signatures();
            address who = address(bytes20(s[:20]));
            if (who <= last || !_isMember[who] || !SignatureChecker.isValidSignatureNow(who, digest, s[20:]))
            {
                revert Signatures();
            }
            last = who;
        }
    }

    function _setCommittee(address[] memory next, uint256 threshold_) internal {
        if (next.length == 0 || next.length > MEMBERS_MAX) revert CommitteeSize();
        if (threshold_ > next.length || threshold_ * 2 <= next.length) revert CommitteeSize();
        for (uint256 i; i < _members.length; ++i) {
            _isMember[_members[i]] = false;
        }
        for (uint256 i; i < next.length; ++i) {
            if (next[i] == address(0) || _isMember[next[i]]) revert CommitteeSize();
            _isMember[next[i]] = true;
        }
        (_members, threshold) = (next, threshold_);
        emit CommitteeSet(next, threshold_);
    }
}
