// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

import {IEscrow} from "../interfaces/IEscrow.sol";

/// @title Who signed: accounts, their session keys, and contract wallets.
/// @notice A session key signs orders within its allowance, signs vouchers, and acts for an
/// operator. Its revocation stops orders and acts at once; vouchers that are already out stay good
/// for a thaw period, so that a host is never left with worthless paper.
abstract contract Signers is IEscrow, EIP712 {
    /// @dev One slot.
    struct Signer {
        uint48 until;
        uint48 end;
        uint96 allowance;
        uint64 nonce;
    }

    bytes32 internal constant ORDER_TYPEHASH = keccak256(
        "Order(bytes16 lease,address buyer,address operator,bytes32 host,bytes16 container,uint256 pricePerHour,uint256 budget,bytes32 task,uint64 issued,uint64 expires)"
    );
    bytes32 internal constant VOUCHER_TYPEHASH =
        keccak256("Voucher(bytes16 lease,address operator,uint256 amount,uint64 secondsUsed)");
    bytes32 internal constant STATEMENT_TYPEHASH =
        keccak256("Statement(bytes16 lease,address operator,uint256 amount,bytes32 root,uint64 leaves)");
    bytes32 internal constant SIGNER_TYPEHASH =
        keccak256("Signer(address account,address signer,uint64 until,uint256 allowance,uint256 nonce)");

    /// @dev The longest that a session key may hold; catches milliseconds taken for seconds.
    uint256 internal constant SIGNER_TERM_MAX = 3650 days;
    /// @dev What a contract wallet may spend on looking at a signature, so that no wallet can block
    /// a batch.
    uint256 internal constant WALLET_GAS = 150_000;
    /// @dev What asking it may cost beyond that, its answer in memory included.
    uint256 internal constant ASKING_GAS = 50_000;

    mapping(address account => mapping(address signer => Signer)) private _signers;

    /// @notice Lets `signer` act for the sender until `until` (seconds), with orders of at most
    /// `allowance` micros together. Cannot shorten what holds already; see [`revokeSigner`].
    /// @param proof the signer's signature under `Signer(...)` with the present nonce
    function setSigner(address signer, uint64 until, uint256 allowance, bytes calldata proof) external {
        Signer storage s = _signers[msg.sender][signer];
        if (until < block.timestamp || until > block.timestamp + SIGNER_TERM_MAX || until < s.until) {
            revert Range();
        }
        if (
            signer == msg.sender
                || !_signedExactly(signer, _signerDigest(signer, until, allowance, s.nonce), proof)
        ) {
            revert Signature();
        }
        uint96 kept = allowance > type(uint96).max ? type(uint96).max : uint96(allowance);
        _signers[msg.sender][signer] = Signer(uint48(until), 0, kept, s.nonce + 1);
        emit SignerSet(msg.sender, signer, until, kept);
    }

    /// @notice Ends what `signer` may do for the sender: orders at once, vouchers after the thaw
    /// period. Revoking again changes nothing.
    function revokeSigner(address signer) external {
        Signer storage s = _signers[msg.sender][signer];
        if (s.until == 0 || s.end != 0) return;
        uint256 end = block.timestamp + _thawPeriod();
        uint256 last = uint256(s.until) + _thawPeriod();
        s.end = uint48(end < last ? end : last);
        emit SignerRevoked(msg.sender, signer, s.end);
    }

    /// @notice How a session key stands.
    /// @return until until when it may sign orders, in seconds
    /// @return allowance micros of orders that it may still sign
    /// @return end when its vouchers end after a revocation; 0 if it was not revoked
    /// @return nonce the nonce of the next proof
    function signerOf(address account, address signer)
        external
        view
        returns (uint64 until, uint256 allowance, uint64 end, uint256 nonce)
    {
        Signer storage s = _signers[account][signer];
        return (s.until, s.allowance, s.end, s.nonce);
    }

    /// @notice The digest that a buyer signs for an order.
    function orderHash(Order calldata order) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ORDER_TYPEHASH, order)));
    }

    /// @notice The digest that a buyer signs for a voucher.
    function voucherHash(Voucher calldata voucher) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, voucher)));
    }

    /// @notice The digest that a buyer signs for a statement.
    function statementHash(Statement calldata statement) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(STATEMENT_TYPEHASH, statement)));
    }

    /// @notice Whether a contract wallet takes a signature (EIP-1271). The escrow asks itself, so that
    /// a long answer costs memory of that call alone.
    function walletTakes(address wallet, bytes32 digest, bytes calldata signature)
        external
        view
        returns (bool)
    {
        (bool ok, bytes memory answer) = wallet.staticcall{gas: WALLET_GAS}(
            abi.encodeCall(IERC1271.isValidSignature, (digest, signature))
        );
        return ok && answer.length >= 32
            && abi.decode(answer, (bytes32)) == bytes32(IERC1271.isValidSignature.selector);
    }

    function _thawPeriod() internal view virtual returns (uint256);

    /// @dev Reverts unless the sender is `operator` or a live key of it.
    function _checkOperator(address operator) internal view {
        if (!_actsFor(operator)) revert NotOperator();
    }

    function _actsFor(address account) internal view returns (bool) {
        if (msg.sender == account) return true;
        Signer storage s = _signers[account][msg.sender];
        return s.end == 0 && s.until >= block.timestamp;
    }

    /// @dev Takes `micros` off a key's allowance.
    function _spendAllowance(address account, address signer, uint256 micros) internal {
        Signer storage s = _signers[account][signer];
        if (s.allowance < micros) revert Funds(micros, s.allowance);
        s.allowance -= uint96(micros);
    }

    /// @dev Checks an order's signature; a session key's allowance is charged with the budget.
    function _checkOrder(Order calldata order, bytes calldata signature) internal {
        bytes32 digest = orderHash(order);
        (address who, ECDSA.RecoverError err,) = ECDSA.tryRecover(digest, signature);
        if (err == ECDSA.RecoverError.NoError) {
            if (who == order.buyer) return;
            Signer storage s = _signers[order.buyer][who];
            if (s.end == 0 && s.until >= block.timestamp) {
                _spendAllowance(order.buyer, who, order.budget);
                return;
            }
        }
        if (!_signedByWallet(order.buyer, digest, signature)) revert Signature();
    }

    /// @dev Whether the account, a session key of it whose vouchers still hold, or the account's
    /// contract signed.
    function _signedForVoucher(address account, bytes32 digest, bytes calldata signature)
        internal
        view
        returns (bool)
    {
        (address who, ECDSA.RecoverError err,) = ECDSA.tryRecover(digest, signature);
        if (err == ECDSA.RecoverError.NoError) {
            if (who == account) return true;
            Signer storage s = _signers[account][who];
            uint256 until = s.until;
            if (until != 0) {
                uint256 end = s.end;
                if ((end == 0 ? until + _thawPeriod() : end) >= block.timestamp) return true;
            }
        }
        return _signedByWallet(account, digest, signature);
    }

    function _signedExactly(address account, bytes32 digest, bytes calldata signature)
        private
        view
        returns (bool)
    {
        (address who, ECDSA.RecoverError err,) = ECDSA.tryRecover(digest, signature);
        return
            (err == ECDSA.RecoverError.NoError && who == account)
                || _signedByWallet(account, digest, signature);
    }

    /// @dev EIP-1271 with bounded gas and tolerant of any answer.
    function _signedByWallet(address account, bytes32 digest, bytes calldata signature)
        private
        view
        returns (bool)
    {
        if (account.code.length == 0) return false;
        try this.walletTakes{gas: WALLET_GAS + ASKING_GAS}(account, digest, signature) returns (bool takes) {
            return takes;
        } catch {
            return false;
        }
    }

    function _signerDigest(address signer, uint64 until, uint256 allowance, uint256 nonce)
        private
        view
        returns (bytes32)
    {
        return _hashTypedDataV4(
            keccak256(abi.encode(SIGNER_TYPEHASH, msg.sender, signer, until, allowance, nonce))
        );
    }
}
