// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";

import {Leaves} from "./libraries/Leaves.sol";

/// @title ATH for everybody on a list, until a date.
contract Airdrop {
    using BitMaps for BitMaps.BitMap;
    using SafeERC20 for IERC20;

    /// @notice ATH.
    IERC20 public immutable token;
    /// @notice The list's root; leaves are (index, account, amount).
    bytes32 public immutable root;
    /// @notice Who receives what nobody claimed.
    address public immutable treasury;
    /// @notice The last second of the claims.
    uint48 public immutable end;

    BitMaps.BitMap private _claimed;

    /// @notice An entry was paid.
    event Claimed(uint256 indexed index, address indexed account, uint256 amount);
    /// @notice What nobody claimed went to the treasury.
    event Swept(uint256 amount);

    /// @notice It was claimed.
    error Done();
    /// @notice The proof does not lead to the root.
    error Proof();
    /// @notice The claims are over.
    error Over();
    /// @notice The claims go on until `at`.
    error NotYet(uint256 at);

    /// @param token_ ATH
    /// @param root_ the list's root
    /// @param treasury_ who receives what nobody claimed
    /// @param end_ the last second of the claims
    constructor(IERC20 token_, bytes32 root_, address treasury_, uint48 end_) {
        (token, root, treasury, end) = (token_, root_, treasury_, end_);
    }

    /// @notice Pays an entry to its account. Anyone may.
    function claim(uint256 index, address account, uint256 amount, bytes32[] calldata proof) external {
        if (block.timestamp > end) revert Over();
        if (_claimed.get(index)) revert Done();
        if (!MerkleProof.verifyCalldata(proof, root, Leaves.drop(index, account, amount))) revert Proof();
        _claimed.set(index);
        emit Claimed(index, account, amount);
        token.safeTransfer(account, amount);
    }

    /// @notice Sends what nobody claimed to the treasury, after the end. Anyone may.
    function sweep() external {
        if (block.timestamp <= end) revert NotYet(end);
        uint256 amount = token.balanceOf(address(this));
        emit Swept(amount);
        token.safeTransfer(treasury, amount);
    }

    /// @notice Whether an entry was paid.
    function isClaimed(uint256 index) external view returns (bool) {
        return _claimed.get(index);
    }
}
