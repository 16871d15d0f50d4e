// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IPriceOracle} from "./interfaces/IPriceOracle.sol";
import {IRefunds} from "./interfaces/IRefunds.sol";
import {Leaves} from "./libraries/Leaves.sol";
import {Money} from "./libraries/Money.sol";
import {Accounts} from "./escrow/Accounts.sol";

/// @title Buyers' money, set aside for leases and paid out by cumulative vouchers.
/// @notice An order opens a lane between a buyer and an operator; vouchers are redeemed on it;
/// closing it gives the rest back. A lane is two storage slots, which later leases use again.
///
/// Invariants: an account's `held` is the sum of `held` of its open lanes; a lane's `paid` never
/// exceeds its `budget`; a lane takes an order only once.
contract Escrow is IRefunds, Accounts {
    /// @dev Two slots; a payment writes the second. `price` is the highest at which anything of this
    /// lease was paid: the treasury got at least the fee at that price, and a refund takes no more
    /// from it, whatever the price did since.
    struct LaneState {
        bytes16 lease;
        uint48 issued;
        bool open;
        uint72 price;
        LaneMoney money;
    }

    /// @dev As in [`Lane`]. `feeBps` is the lowest at which anything of this lease was paid: a refund
    /// takes no more from the treasury, whatever the fee is since.
    struct LaneMoney {
        uint96 held;
        uint56 paid;
        uint56 budget;
        uint32 active;
        uint16 feeBps;
    }

    /// @dev What a voucher or statement asks for.
    struct Claim {
        address buyer;
        address operator;
        bytes16 lease;
        uint256 amount;
        uint256 holdBeyond;
        bytes32 digest;
    }

    /// @dev At which terms it is paid, and what it adds up to; read and written once for a batch as
    /// long as the operator is the same.
    struct Terms {
        uint256 price;
        uint256 feeBps;
        uint256 marginBps;
        address operator;
        uint256 earned;
        uint256 fees;
    }

    /// @notice How long after its last payment a lease can be refunded by the refunder role.
    uint256 public constant REFUND_WINDOW = 30 days;
    /// @notice How far off an order's expiry counts for [`release`].
    uint256 public constant EXPIRY_MAX = 30 days;

    mapping(address buyer => mapping(address operator => mapping(uint32 lane => LaneState))) private _lanes;

    /// @param token_ the money, with a supply below 2^96
    /// @param oracle_ USD per token
    /// @param treasury_ whose account takes the fees
    /// @param authority_ the access manager
    constructor(IERC20 token_, IPriceOracle oracle_, address treasury_, address authority_)
        Accounts(token_, oracle_, treasury_)
        AccessManaged(authority_)
        EIP712("Welkin", "1")
    {}

    /// @notice Opens a lane with the buyer's order and sets `micros` aside. The same order again,
    /// while it is open, changes nothing.
    function reserve(Order calldata order, bytes calldata signature, uint64 micros) external {
        _checkOperator(order.operator);
        LaneState storage lane = _lane(order.buyer, order.operator, order.lease);
        (bytes16 last, uint256 issued, bool open) = (lane.lease, lane.issued, lane.open);
        if (issued != 0 && last == order.lease) {
            if (!open) revert Closed();
            if (issued == order.issued) return;
        }
        if (open) revert LaneBusy(last);
        if (order.issued <= issued) revert Replayed();
        if (order.expires < block.timestamp * 1000) revert Expired(order.expires);
        if (micros > order.budget || order.budget > Money.MAX_MICROS || order.issued > type(uint48).max) {
            revert Range();
        }
        if (pausedUntil > block.timestamp) revert Paused(pausedUntil);
        _checkOrder(order, signature);

        _open(lane, order, micros);
    }

    /// @notice Pays what a voucher promises beyond what is paid, then sets aside what
    /// `holdBeyond` micros more would need, as far as money goes.
    function redeem(address buyer, Voucher calldata voucher, bytes calldata signature, uint64 holdBeyond)
        external
    {
        _checkOperator(voucher.operator);
        _settleOne(_claimOf(buyer, voucher, holdBeyond), signature);
    }

    /// @notice As [`redeem`], many at once. What cannot be redeemed is skipped and told.
    function redeemBatch(Redemption[] calldata redemptions) external {
        Terms memory terms = _terms();
        for (uint256 i; i < redemptions.length; ++i) {
            Redemption calldata r = redemptions[i];
            bytes4 reason = _actsFor(r.voucher.operator)
                ? _settle(_claimOf(r.buyer, r.voucher, r.holdBeyond), r.signature, terms)
                : NotOperator.selector;
            if (reason != 0) emit Skipped(i, reason);
        }
        _credit(terms, address(0));
    }

    /// @notice As [`redeem`], for the sum of many sub-leases under one signature.
    function redeemStatement(
        address buyer,
        Statement calldata statement,
        bytes calldata signature,
        uint64 holdBeyond
    ) external {
        _checkOperator(statement.operator);
        Claim memory claim = Claim(
            buyer, statement.operator, statement.lease, statement.amount, holdBeyond, statementHash(statement)
        );
        _settleOne(claim, signature);
        emit StatementRedeemed(buyer, statement.operator, statement.lease, statement.root, statement.leaves);
    }

    /// @notice Pays what the sender, a buyer, promised for a lease: `amount` micros in all. An operator
    /// that redeems its vouchers one by one can then not put off [`release`] any longer.
    function settle(address operator, bytes16 lease, uint256 amount) external {
        _settleOne(Claim(msg.sender, operator, lease, amount, 0, 0), msg.data[:0]);
    }

    /// @notice Ends a lease of the sender and gives back what is aside. Again, it changes nothing.
    function close(address buyer, bytes16 lease) external {
        _close(buyer, msg.sender, lease);
    }

    /// @notice As [`close`], sent by a key of the operator.
    function closeFor(address buyer, address operator, bytes16 lease) external {
        _checkOperator(operator);
        _close(buyer, operator, lease);
    }

    /// @notice Redeems the last voucher, then closes. With nothing due it needs no price.
    function closeWith(address buyer, Voucher calldata voucher, bytes calldata signature) external {
        _checkOperator(voucher.operator);
        LaneState storage lane = _known(buyer, voucher.operator, voucher.lease);
        if (voucher.amount > lane.money.paid) _settleOne(_claimOf(buyer, voucher, 0), signature);
        _close(buyer, voucher.operator, voucher.lease);
    }

    /// @notice Ends a lease of the sender, a buyer, whose operator has neither redeemed nor closed
    /// for the release grace after the later of the order's expiry and the last payment. While there
    /// is no price, so that the operator cannot redeem, that grace is the longest, [`PERIOD_MAX`].
    function release(address operator, bytes16 lease) external {
        LaneState storage lane = _known(msg.sender, operator, lease);
        if (!lane.open) revert Closed();
        uint256 from = uint256(lane.money.active) + _grace();
        if (from > block.timestamp) revert NotYet(uint64(from));
        uint256 returned = _close(msg.sender, operator, lease);
        emit Released(msg.sender, operator, lease, returned);
    }

    /// @notice Gives back up to `micros` of what was paid for a lease, and closes it so that its
    /// vouchers cannot be redeemed again. By the operator, by a key of it within its allowance, or
    /// by the refunder role within [`REFUND_WINDOW`]. The fee is waived as far as the treasury's
    /// account has it.
    function refund(address buyer, address operator, bytes16 lease, uint64 micros, bytes32 reason) external {
        LaneState storage lane = _known(buyer, operator, lease);
        LaneMoney memory m = lane.money;
        uint256 back = Math.min(micros, m.paid);
        if (_actsFor(operator)) {
            if (msg.sender != operator) _spendAllowance(operator, msg.sender, back);
        } else {
            _checkCanCall(msg.sender, msg.data);
            uint256 end = uint256(m.active) + REFUND_WINDOW;
            if (end < block.timestamp) revert Expired(uint64(end));
        }
        _close(buyer, operator, lease);
        lane.money.paid = uint56(m.paid - back);
        Account storage a = _accounts[buyer];
        a.spent -= uint64(Math.min(a.spent, back));
        (uint256 fromOperator, uint256 fromTreasury) = _giveBack(operator, back, m, lane.price);
        a.balance += uint96(fromOperator + fromTreasury);
        emit Refunded(buyer, operator, lease, back, fromOperator, fromTreasury, reason);
    }

    /// @notice How a lease stands. Reverts if its lane holds another.
    function laneOf(address buyer, address operator, bytes16 lease) external view returns (Lane memory) {
        LaneState storage l = _known(buyer, operator, lease);
        LaneMoney memory m = l.money;
        return Lane(l.lease, l.issued, l.open, m.held, m.paid, m.budget, m.active);
    }

    /// @notice Whether a sub-lease with its cumulative sum is under a statement's root.
    function verifyLeaf(bytes32 root, bytes16 lease, uint256 amount, bytes32[] calldata proof)
        external
        pure
        returns (bool)
    {
        return MerkleProof.verifyCalldata(proof, root, Leaves.lease(lease, amount));
    }

    function _open(LaneState storage lane, Order calldata order, uint256 micros) private {
        uint256 price = _price();
        uint96 held = _setAside(order.buyer, micros, price);
        uint256 expiry = Math.min(Math.ceilDiv(order.expires, 1000), block.timestamp + EXPIRY_MAX);
        (lane.lease, lane.issued, lane.open, lane.price) =
        (order.lease, uint48(order.issued), true, uint72(price));
        lane.money = LaneMoney(held, 0, uint56(order.budget), uint32(expiry), type(uint16).max);
        emit Reserved(order.buyer, order.operator, order.lease, micros, held, order.budget);
    }

    /// @dev Sets `micros` of a buyer aside, with the margin.
    function _setAside(address buyer, uint256 micros, uint256 price) private returns (uint96) {
        Account storage a = _accounts[buyer];
        uint256 needed = Money.withShare(Money.toWei(micros, price), holdMarginBps);
        uint256 free = a.balance - a.held;
        if (needed > free) revert Funds(needed, free);
        a.held += uint96(needed);
        return uint96(needed);
    }

    function _settleOne(Claim memory claim, bytes calldata signature) private {
        Terms memory terms = _terms();
        _raise(_settle(claim, signature, terms));
        _credit(terms, address(0));
    }

    /// @dev Pays a claim and tops up what is aside; 0, or why it cannot be paid.
    function _settle(Claim memory claim, bytes calldata signature, Terms memory terms)
        private
        returns (bytes4)
    {
        LaneState storage lane = _lane(claim.buyer, claim.operator, claim.lease);
        if (lane.lease != claim.lease || lane.issued == 0) return UnknownLease.selector;
        if (!lane.open) return Closed.selector;
        LaneMoney memory m = lane.money;
        if (claim.amount > m.budget) return Range.selector;
        uint256 due = claim.amount > m.paid ? claim.amount - m.paid : 0;
        if (due != 0 && msg.sender != claim.buyer) {
            if (!_signedForVoucher(claim.buyer, claim.digest, signature)) return Signature.selector;
        }

        // Before the buyer's account is read: it may be the one that is credited.
        if (due != 0 && terms.operator != claim.operator) _credit(terms, claim.operator);
        Account memory a = _accounts[claim.buyer];
        if (due != 0) {
            if (lane.price < terms.price) lane.price = uint72(terms.price);
            _pay(a, m, claim, due, terms);
        }
        if (claim.holdBeyond != 0) _topUp(a, m, claim, terms);
        lane.money = m;
        _accounts[claim.buyer] = a;
        return 0;
    }

    /// @dev Takes what is due from a buyer's account, first from what is aside for the lease.
    function _pay(Account memory a, LaneMoney memory m, Claim memory claim, uint256 due, Terms memory terms)
        private
    {
        uint256 available = uint256(m.held) + a.balance - a.held;
        uint256 covered = due;
        uint256 out = Money.toWei(due, terms.price);
        if (out > available) {
            covered = Money.toMicros(available, terms.price);
            out = Money.toWei(covered, terms.price);
            emit Short(claim.buyer, claim.operator, claim.lease, due - covered);
            if (covered == 0) return;
        }
        uint96 fromHeld = uint96(Math.min(out, m.held));
        a.held -= fromHeld;
        a.balance -= uint96(out);
        a.spent = uint64(Math.min(uint256(a.spent) + covered, type(uint64).max));
        m.held -= fromHeld;
        m.paid += uint56(covered);
        if (m.active < block.timestamp) m.active = uint32(block.timestamp);
        if (m.feeBps > terms.feeBps) m.feeBps = uint16(terms.feeBps);
        uint256 fee = _feeOf(covered, m.paid, terms.feeBps);
        // The fee's micros are at most those covered, and `out` is below 2^96.
        unchecked {
            fee = out * fee / covered;
            terms.earned += out - fee;
            terms.fees += fee;
        }
        emit Paid(claim.buyer, claim.operator, claim.lease, covered, m.paid, out, fee);
    }

    /// @dev The fee in `micros`, the last of `paid`: by micros of the lease's total, as every reader of
    /// vouchers and receipts computes it. Nothing overflows: `paid` is at most 1e15.
    function _feeOf(uint256 micros, uint256 paid, uint256 bps) private pure returns (uint256) {
        unchecked {
            return paid * bps / 10_000 - (paid - micros) * bps / 10_000;
        }
    }

    /// @dev Raises what is aside for a lease to what `holdBeyond` needs, as far as money goes.
    function _topUp(Account memory a, LaneMoney memory m, Claim memory claim, Terms memory terms) private {
        uint256 beyond = Math.min(claim.holdBeyond, m.budget - m.paid);
        uint256 goal = Money.withShare(Money.toWei(beyond, terms.price), terms.marginBps);
        if (goal <= m.held) return;
        uint96 more = uint96(Math.min(goal - m.held, a.balance - a.held));
        if (more == 0) return;
        a.held += more;
        m.held += more;
        emit Held(claim.lease, m.held);
    }

    /// @dev Books what was earned so far, and goes on for another operator.
    function _credit(Terms memory terms, address next) private {
        if (terms.earned != 0) _accounts[terms.operator].balance += uint96(terms.earned);
        if (terms.fees != 0) _accounts[treasury].balance += uint96(terms.fees);
        (terms.operator, terms.earned, terms.fees) = (next, 0, 0);
    }

    /// @dev Takes a refund from those who were paid. The treasury gives no more than the lowest fee at
    /// the highest price at which it was paid.
    function _giveBack(address operator, uint256 micros, LaneMoney memory m, uint256 paidAt)
        private
        returns (uint256 fromOperator, uint256 fromTreasury)
    {
        uint256 price = _price();
        uint256 fee = _feeOf(micros, m.paid, m.feeBps);
        fromOperator = Money.toWei(micros - fee, price);
        uint256 free = _freeOf(operator);
        if (fromOperator > free) revert Funds(fromOperator, free);
        _accounts[operator].balance -= uint96(fromOperator);
        fromTreasury = Math.min(Money.toWei(fee, Math.max(price, paidAt)), _freeOf(treasury));
        _accounts[treasury].balance -= uint96(fromTreasury);
    }

    function _close(address buyer, address operator, bytes16 lease) private returns (uint256 returned) {
        LaneState storage lane = _known(buyer, operator, lease);
        if (!lane.open) return 0;
        lane.open = false;
        returned = lane.money.held;
        _accounts[buyer].held -= uint96(returned);
        emit LeaseClosed(buyer, operator, lease, returned);
    }

    function _claimOf(address buyer, Voucher calldata v, uint256 holdBeyond)
        private
        view
        returns (Claim memory)
    {
        return Claim(buyer, v.operator, v.lease, v.amount, holdBeyond, voucherHash(v));
    }

    function _terms() private view returns (Terms memory) {
        return Terms(_price(), feeBps, holdMarginBps, address(0), 0, 0);
    }

    function _freeOf(address account) private view returns (uint256) {
        Account storage a = _accounts[account];
        return a.balance - a.held;
    }

    /// @dev The lane of a lease: the last four bytes of its id.
    function _lane(address buyer, address operator, bytes16 lease) private view returns (LaneState storage) {
        return _lanes[buyer][operator][uint32(uint128(lease))];
    }

    function _known(address buyer, address operator, bytes16 lease)
        private
        view
        returns (LaneState storage lane)
    {
        lane = _lane(buyer, operator, lease);
        if (lane.issued == 0 || lane.lease != lease) revert UnknownLease();
    }

    function _raise(bytes4 reason) private pure {
        if (reason == 0) return;
        if (reason == Closed.selector) revert Closed();
        if (reason == Signature.selector) revert Signature();
        if (reason == Range.selector) revert Range();
        revert UnknownLease();
    }
}
