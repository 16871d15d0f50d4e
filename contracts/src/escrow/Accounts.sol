// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {IPriceOracle} from "../interfaces/IPriceOracle.sol";
import {Money} from "../libraries/Money.sol";
import {Signers} from "./Signers.sol";

/// @title Accounts of the escrow, and its parameters.
/// @notice Sum of all balances == tokens that came in by deposits and have not gone out. Only an
/// account itself can take its money out. The manager's roles set parameters within fixed bounds
/// and can stop new reservations for a bounded time; they reach nobody's money.
abstract contract Accounts is Signers, AccessManaged, ReentrancyGuardTransient {
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    /// @dev One slot. held <= balance.
    struct Account {
        uint96 balance;
        uint96 held;
        uint64 spent;
    }

    /// @dev One slot, apart from the account since payments need not read it.
    struct Thaw {
        uint96 amount;
        uint64 end;
    }

    /// @notice The highest fee that can ever be set: 30 %.
    uint16 public constant FEE_MAX_BPS = 3_000;
    /// @notice The longest thaw period and release grace.
    uint32 public constant PERIOD_MAX = 30 days;
    /// @notice The shortest release grace.
    uint32 public constant GRACE_MIN = 10 minutes;
    /// @notice The highest margin of reservations.
    uint16 public constant MARGIN_MAX_BPS = 5_000;
    /// @dev What a release may spend on asking for the price.
    uint256 internal constant ORACLE_GAS = 200_000;
    /// @notice How long one pause can last, and how long after it none can begin.
    uint32 public constant PAUSE_MAX = 7 days;

    /// @notice The money: ATH, or a stablecoin in a second deployment.
    IERC20 public immutable token;
    /// @notice Whose account takes the fees.
    address public immutable treasury;

    // One slot, read on each payment.
    /// @notice USD per token.
    IPriceOracle public oracle;
    /// @notice The service fee in basis points.
    uint16 public feeBps = 2_000;
    /// @notice How much more than its micros a reservation sets aside, in basis points.
    uint16 public holdMarginBps;
    /// @notice Seconds from announcing a withdrawal to taking it.
    uint32 public thawPeriod = 1 days;
    /// @notice Seconds after which a buyer may release a lease that its operator abandoned.
    uint32 public releaseGrace = 1 days;

    /// @notice The oracle that was announced; zero if none.
    IPriceOracle public nextOracle;
    /// @notice From when the announced oracle can be applied.
    uint48 public nextOracleFrom;
    /// @notice Until when there are no new reservations.
    uint48 public pausedUntil;
    /// @notice What the next sweep sends to the treasury, as far as it is still here.
    uint96 public sweepable;
    /// @notice When fees were last swept.
    uint48 public sweptAt;

    mapping(address account => Account) internal _accounts;
    mapping(address account => Thaw) private _thaws;

    constructor(IERC20 token_, IPriceOracle oracle_, address treasury_) {
        if (treasury_ == address(0) || address(oracle_) == address(0)) revert Range();
        // All balances together then fit an account's 96 bits.
        if (token_.totalSupply() > type(uint96).max) revert Range();
        (token, oracle, treasury) = (token_, oracle_, treasury_);
    }

    /// @notice Pays `amount` of the sender's tokens into `account`.
    function deposit(address account, uint256 amount) external nonReentrant {
        _deposit(account, amount);
    }

    /// @notice As [`deposit`], with the sender's allowance by signature (EIP-2612).
    function depositWithPermit(
        address account,
        uint256 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        // Somebody may have sent the same permit before; then the allowance is there already.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
        _deposit(account, amount);
    }

    /// @notice Announces a withdrawal of the sender; it replaces an earlier one, 0 calls it off.
    function thaw(uint256 amount) external {
        uint256 balance = _accounts[msg.sender].balance;
        if (amount > balance) revert Funds(amount, balance);
        uint64 end = amount == 0 ? 0 : uint64(block.timestamp + thawPeriod);
        _thaws[msg.sender] = Thaw(uint96(amount), end);
        emit Thawing(msg.sender, amount, end);
    }

    /// @notice Takes out what the sender announced, as far as it is not set aside for a lease.
    /// @param to who receives it
    function withdraw(address to) external nonReentrant {
        Thaw memory t = _thaws[msg.sender];
        if (t.amount == 0) revert Range();
        if (t.end > block.timestamp) revert NotYet(t.end);
        Account storage a = _accounts[msg.sender];
        uint96 free = a.balance - a.held;
        if (free == 0) revert Funds(t.amount, 0);
        uint96 amount = t.amount < free ? t.amount : free;
        delete _thaws[msg.sender];
        a.balance -= amount;
        emit Withdrawn(msg.sender, to, amount);
        token.safeTransfer(to, amount);
    }

    /// @notice Sends the fees to the treasury that were here at the last sweep, at least
    /// [`PERIOD_MAX`] ago: until then a refund may need them. Anyone may.
    function sweepFees() external nonReentrant {
        uint256 from = uint256(sweptAt) + PERIOD_MAX;
        if (from > block.timestamp) revert NotYet(uint64(from));
        Account storage a = _accounts[treasury];
        uint96 free = a.balance - a.held;
        uint96 amount = sweepable < free ? sweepable : free;
        (sweepable, sweptAt) = (free - amount, uint48(block.timestamp));
        if (amount == 0) return;
        a.balance -= amount;
        emit FeesSwept(amount);
        token.safeTransfer(treasury, amount);
    }

    /// @notice How an account stands, all in wei but the last.
    function accountOf(address account)
        external
        view
        returns (uint256 balance, uint256 held, uint256 thawing, uint64 thawEnd, uint64 spentMicros)
    {
        Account storage a = _accounts[account];
        Thaw storage t = _thaws[account];
        return (a.balance, a.held, t.amount, t.end, a.spent);
    }

    /// @notice ATH wei for USD micros at the present price.
    function toWei(uint64 micros) external view returns (uint256) {
        return Money.toWei(micros, oracle.price());
    }

    /// @notice USD micros for ATH wei at the present price.
    function toMicros(uint256 amount) external view returns (uint256) {
        return Money.toMicros(amount, oracle.price());
    }

    /// @notice Sets the fee, at most 30 %.
    function setFee(uint16 bps) external restricted {
        if (bps > FEE_MAX_BPS) revert Range();
        feeBps = bps;
        emit FeeSet(bps);
    }

    /// @notice Sets the thaw period, at most 30 days. Withdrawals already announced keep theirs.
    function setThawPeriod(uint32 period) external restricted {
        if (period > PERIOD_MAX) revert Range();
        thawPeriod = period;
        emit ThawPeriodSet(period);
    }

    /// @notice Sets the release grace, 10 minutes to 30 days.
    function setReleaseGrace(uint32 grace) external restricted {
        if (grace < GRACE_MIN || grace > PERIOD_MAX) revert Range();
        releaseGrace = grace;
        emit ReleaseGraceSet(grace);
    }

    /// @notice Sets how much more than its micros a reservation sets aside, at most half again.
    function setHoldMargin(uint16 bps) external restricted {
        if (bps > MARGIN_MAX_BPS) revert Range();
        holdMarginBps = bps;
        emit HoldMarginSet(bps);
    }

    /// @notice Announces another oracle. It can be applied a day after everybody who thaws at once
    /// has been able to leave.
    function setOracle(IPriceOracle next) external restricted {
        if (address(next) == address(0)) revert Range();
        nextOracle = next;
        nextOracleFrom = uint48(block.timestamp + thawPeriod + 1 days);
        emit OracleAnnounced(address(next), nextOracleFrom);
    }

    /// @notice Puts the announced oracle in place. Anyone may, once it is time.
    function applyOracle() external {
        if (address(nextOracle) == address(0)) revert Range();
        if (nextOracleFrom > block.timestamp) revert NotYet(nextOracleFrom);
        oracle = nextOracle;
        delete nextOracle;
        emit OracleSet(address(oracle));
    }

    /// @notice Stops new reservations for at most a week; then at least a week must pass before the
    /// next pause. Paying, closing, releasing and withdrawing go on.
    function pause(uint32 period) external restricted {
        if (period == 0 || period > PAUSE_MAX) revert Range();
        if (pausedUntil != 0 && block.timestamp < uint256(pausedUntil) + PAUSE_MAX) {
            revert NotYet(uint64(pausedUntil) + PAUSE_MAX);
        }
        pausedUntil = uint48(block.timestamp + period);
        emit ReservationsPaused(pausedUntil);
    }

    /// @notice Ends a pause early.
    function unpause() external restricted {
        if (pausedUntil > block.timestamp) pausedUntil = uint48(block.timestamp);
        emit ReservationsUnpaused();
    }

    function _deposit(address account, uint256 amount) private {
        if (account == address(0)) revert Range();
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        if (token.balanceOf(address(this)) - before != amount) revert Token();
        _accounts[account].balance += amount.toUint96();
        emit Deposited(account, msg.sender, amount);
    }

    function _thawPeriod() internal view override returns (uint256) {
        return thawPeriod;
    }

    /// @dev The price, which must fit a lane: up to 4,722 USD per token with 18 decimals.
    function _price() internal view returns (uint256 price) {
        price = oracle.price();
        if (price == 0 || price > type(uint72).max) revert Range();
    }

    /// @dev The release grace, or the longest while there is no price. Whatever the oracle does, and
    /// even if it is no contract, this answers.
    function _grace() internal view returns (uint256) {
        (bool ok, bytes memory answer) =
            address(oracle).staticcall{gas: ORACLE_GAS}(abi.encodeCall(IPriceOracle.price, ()));
        if (!ok || answer.length < 32) return PERIOD_MAX;
        uint256 price = abi.decode(answer, (uint256));
        return price == 0 || price > type(uint72).max ? PERIOD_MAX : releaseGrace;
    }
}
