// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {Votes} from "@openzeppelin/contracts/governance/utils/Votes.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Time} from "@openzeppelin/contracts/utils/types/Time.sol";

import {IPriceOracle} from "./interfaces/IPriceOracle.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {IStaking} from "./interfaces/IStaking.sol";
import {Money} from "./libraries/Money.sol";
import {Pools} from "./libraries/Pools.sol";

/// @title Stakes for containers and indexers, by their owners and by delegators.
/// @notice Everything staked for a subject is one pool of shares; what is unbonding is a second
/// one. A slash takes from both in proportion, whether or not an unbond's time is over, as long as
/// it has not been withdrawn. Staked ATH is voting power of who staked it.
contract Staking is IStaking, AccessManaged, Votes {
    using Pools for Pools.Pool;
    using SafeCast for uint256;
    using SafeERC20 for IERC20;

    /// @dev What a class must stake: `k` ATH wei times the coefficient, or `usd` micros of ATH.
    struct Class {
        uint128 k;
        uint64 usd;
        bool pegged;
    }

    /// @dev What a subject must have staked, for which generation of its hardware.
    struct Commitment {
        uint128 required;
        uint32 generation;
        bool made;
    }

    /// @dev What penalties are still measured by after a subject committed to less.
    struct Liability {
        uint128 required;
        uint48 until;
    }

    /// @dev A staker's part of a pool. `units` is the voting power that is counted for it.
    struct Position {
        uint128 shares;
        uint96 units;
        uint32 round;
    }

    /// @dev One announced exit.
    struct Unbond {
        address account;
        uint48 end;
        uint32 round;
        uint128 shares;
        bytes32 subject;
    }

    /// @dev How much of a subject's collateral was slashed in the present period.
    struct Period {
        uint48 start;
        uint104 base;
        uint104 taken;
    }

    /// @notice How long an exit takes.
    uint256 public constant UNBONDING = 180 days;
    /// @notice The period of the slashing cap.
    uint256 public constant SLASH_PERIOD = 7 days;
    /// @notice The lowest that the slashing cap can be set.
    uint16 public constant SLASH_CAP_MIN_BPS = 1_000;

    /// @notice ATH.
    IERC20 public immutable token;
    /// @notice Where subjects are registered.
    IRegistry public immutable registry;

    /// @notice The staking coefficient, 18 decimals.
    uint128 public coefficient = 1e18;
    /// @notice The most of a subject's collateral that a period can take, in basis points.
    uint16 public slashCapBps = 5_000;
    /// @notice USD per ATH, for pegged classes.
    IPriceOracle public oracle;
    /// @notice The number of the last unbond.
    uint256 public unbonds;
    /// @notice Everything that was ever slashed of a subject.
    mapping(bytes32 subject => uint256) public slashedOf;
    /// @notice What a class must stake.
    mapping(uint32 class => Class) public classes;

    mapping(bytes32 subject => Pools.Pool) private _staked;
    mapping(bytes32 subject => Pools.Pool) private _thawing;
    mapping(bytes32 subject => Commitment) private _commitments;
    mapping(bytes32 subject => Liability) private _liabilities;
    mapping(bytes32 subject => Period) private _periods;
    mapping(bytes32 subject => mapping(address account => Position)) private _positions;
    mapping(uint256 unbond => Unbond) private _unbonds;
    mapping(address account => uint256) private _units;

    /// @notice A stake came in.
    event Staked(bytes32 indexed subject, address indexed account, uint256 amount, uint256 shares);
    /// @notice An exit was announced.
    event Unbonding(
        bytes32 indexed subject, address indexed account, uint256 indexed unbond, uint256 amount, uint64 end
    );
    /// @notice A stake went out.
    event Withdrawn(bytes32 indexed subject, address indexed account, uint256 indexed unbond, uint256 amount);
    /// @notice What a subject must have staked was fixed.
    event Committed(bytes32 indexed subject, uint256 required, uint32 generation);
    /// @notice A part of a subject's collateral was taken.
    event Slashed(bytes32 indexed subject, uint256 amount, uint256 total);
    /// @notice What a class must stake changed, for those who commit from now on.
    event ClassSet(uint32 indexed class, uint256 k, uint256 usd, bool pegged);
    /// @notice The coefficient changed.
    event CoefficientSet(uint256 coefficient);
    /// @notice The slashing cap changed.
    event SlashCapSet(uint16 bps);
    /// @notice The oracle changed.
    event OracleSet(address oracle);

    /// @notice No such subject, or not the sender's.
    error NotOwner();
    /// @notice A sum that is not kept.
    error NotKept();
    /// @notice A number is out of its bounds.
    error Range();
    /// @notice Not before `at`.
    error NotYet(uint64 at);

    /// @param token_ ATH
    /// @param registry_ where subjects are registered
    /// @param oracle_ USD per ATH
    /// @param authority_ the access manager
    constructor(IERC20 token_, IRegistry registry_, IPriceOracle oracle_, address authority_)
        AccessManaged(authority_)
        EIP712("Welkin Staking", "1")
    {
        (token, registry, oracle) = (token_, registry_, oracle_);
    }

    /// @notice Stakes for a container or an indexer: its owner, or anybody who trusts it.
    function stake(bytes32 subject, uint256 amount) external {
        if (amount == 0) revert Range();
        if (registry.subjectOf(subject).owner == address(0)) revert NotOwner();
        Pools.Pool storage pool = _staked[subject];
        Position memory p = _positions[subject][msg.sender];
        if (p.round != pool.round) (p.shares, p.round) = (0, pool.round);
        uint256 shares = pool.join(amount);
        p.shares += shares.toUint128();
        _positions[subject][msg.sender] = p;
        _count(subject, msg.sender);
        emit Staked(subject, msg.sender, amount, shares);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice Announces the exit of `shares` of the sender's. They lose their vote at once and stay
    /// slashable until they are withdrawn.
    function unstake(bytes32 subject, uint256 shares) external returns (uint256 unbond) {
        Pools.Pool storage pool = _staked[subject];
        Position storage p = _positions[subject][msg.sender];
        if (shares == 0 || p.round != pool.round || shares > p.shares) revert Range();
        p.shares -= uint128(shares);
        uint256 amount = pool.leave(shares);
        _count(subject, msg.sender);
        Pools.Pool storage thawing = _thawing[subject];
        uint256 kept = thawing.join(amount);
        uint48 end = uint48(block.timestamp + UNBONDING);
        unbond = ++unbonds;
        _unbonds[unbond] = Unbond(msg.sender, end, thawing.round, kept.toUint128(), subject);
        emit Unbonding(subject, msg.sender, unbond, amount, end);
    }

    /// @notice Takes out an exit whose time is over. Anyone may; it goes to who staked.
    function withdraw(uint256 unbond) external returns (uint256 amount) {
        Unbond memory u = _unbonds[unbond];
        if (u.account == address(0)) revert NotOwner();
        if (u.end > block.timestamp) revert NotYet(u.end);
        delete _unbonds[unbond];
        Pools.Pool storage thawing = _thawing[u.subject];
        amount = u.round == thawing.round ? thawing.leave(u.shares) : 0;
        emit Withdrawn(u.subject, u.account, unbond, amount);
        token.safeTransfer(u.account, amount);
    }

    /// @notice Fixes what the sender's subject must have staked, at the present K, coefficient and
    /// price. Needed once, and again after each change of its hardware. Penalties are measured by
    /// the higher of old and new for as long as an exit takes.
    function commit(bytes32 subject) external {
        IRegistry.Subject memory s = registry.subjectOf(subject);
        if (s.owner != msg.sender) revert NotOwner();
        uint256 required = requirement(s.class);
        if (required == 0) revert Range();
        uint256 before = requiredOf(subject);
        if (before > required) {
            _liabilities[subject] = Liability(before.toUint128(), uint48(block.timestamp + UNBONDING));
        }
        _commitments[subject] = Commitment(required.toUint128(), s.generation, true);
        emit Committed(subject, required, s.generation);
    }

    /// @notice Brings the counted votes of a stake down to its value after a slash. Anyone may.
    function sync(bytes32 subject, address account) external {
        _count(subject, account);
    }

    /// @inheritdoc IStaking
    function slash(bytes32 subject, uint256 amount) external restricted returns (uint256 taken) {
        Pools.Pool storage staked = _staked[subject];
        Pools.Pool storage thawing = _thawing[subject];
        uint256 collateral = uint256(staked.tokens) + thawing.tokens;
        taken = Math.min(Math.min(amount, collateral), _room(subject, collateral));
        if (taken == 0) return 0;
        _periods[subject].taken += uint104(taken);
        uint256 fromThawing = Math.mulDiv(taken, thawing.tokens, collateral);
        thawing.cut(fromThawing);
        staked.cut(taken - fromThawing);
        slashedOf[subject] += taken;
        emit Slashed(subject, taken, slashedOf[subject]);
        token.safeTransfer(msg.sender, taken);
    }

    /// @notice Sets what a class must stake, for those who commit from now on.
    function setClass(uint32 class, Class calldata value) external restricted {
        if (value.k > Money.BPS * 1e22 || value.usd > Money.MAX_MICROS) revert Range();
        classes[class] = value;
        emit ClassSet(class, value.k, value.usd, value.pegged);
    }

    /// @notice Sets the coefficient, at most a million.
    function setCoefficient(uint128 value) external restricted {
        if (value == 0 || value > 1e24) revert Range();
        coefficient = value;
        emit CoefficientSet(value);
    }

    /// @notice Sets the slashing cap of a period, 10 % to all.
    function setSlashCap(uint16 bps) external restricted {
        if (bps < SLASH_CAP_MIN_BPS || bps > Money.BPS) revert Range();
        slashCapBps = bps;
        emit SlashCapSet(bps);
    }

    /// @notice Sets the oracle of pegged classes.
    function setOracle(IPriceOracle next) external restricted {
        oracle = next;
        emit OracleSet(address(next));
    }

    /// @notice What a class must stake at present.
    function requirement(uint32 class) public view returns (uint256) {
        Class memory c = classes[class];
        if (c.pegged) return Money.toWei(c.usd, oracle.price());
        return Math.mulDiv(c.k, coefficient, 1e18);
    }

    /// @notice Whether a subject is verified and has staked what its present hardware requires.
    function isActive(bytes32 subject) external view returns (bool) {
        IRegistry.Subject memory s = registry.subjectOf(subject);
        Commitment memory c = _commitments[subject];
        return s.verified && c.made && c.generation == s.generation && _staked[subject].tokens >= c.required;
    }

    /// @inheritdoc IStaking
    function requiredOf(bytes32 subject) public view returns (uint256) {
        Liability memory l = _liabilities[subject];
        uint256 required = _commitments[subject].required;
        return block.timestamp <= l.until ? Math.max(required, l.required) : required;
    }

    /// @inheritdoc IStaking
    function collateralOf(bytes32 subject) external view returns (uint256) {
        return uint256(_staked[subject].tokens) + _thawing[subject].tokens;
    }

    /// @notice What is staked for a subject, and what is unbonding.
    function stakedOf(bytes32 subject) external view returns (uint256 staked, uint256 thawing) {
        return (_staked[subject].tokens, _thawing[subject].tokens);
    }

    /// @notice What an account has staked for a subject.
    function stakeOf(bytes32 subject, address account) public view returns (uint256 amount, uint256 shares) {
        Pools.Pool storage pool = _staked[subject];
        Position storage p = _positions[subject][account];
        shares = p.round == pool.round ? p.shares : 0;
        amount = pool.worth(shares);
    }

    /// @notice An announced exit and what it is worth at present.
    function unbondOf(uint256 unbond) external view returns (Unbond memory u, uint256 amount) {
        u = _unbonds[unbond];
        Pools.Pool storage thawing = _thawing[u.subject];
        amount = u.account != address(0) && u.round == thawing.round ? thawing.worth(u.shares) : 0;
    }

    /// @notice Not kept: the quorum is a share of ATH's supply, in which what is staked is.
    function getPastTotalSupply(uint256) public pure override returns (uint256) {
        revert NotKept();
    }

    /// @notice The clock of votes: seconds since 1970.
    function clock() public view override returns (uint48) {
        return Time.timestamp();
    }

    /// @notice Says what [`clock`] counts (ERC-6372).
    // solhint-disable-next-line func-name-mixedcase
    function CLOCK_MODE() public pure override returns (string memory) {
        return "mode=timestamp";
    }

    function _getVotingUnits(address account) internal view override returns (uint256) {
        return _units[account];
    }

    /// @dev Counts a position's worth as votes.
    function _count(bytes32 subject, address account) private {
        (uint256 amount,) = stakeOf(subject, account);
        Position storage p = _positions[subject][account];
        uint256 counted = p.units;
        if (amount == counted) return;
        p.units = amount.toUint96();
        _units[account] = _units[account] + amount - counted;
        address delegate = delegates(account);
        if (amount > counted) _moveDelegateVotes(address(0), delegate, amount - counted);
        else _moveDelegateVotes(delegate, address(0), counted - amount);
    }

    /// @dev What the present period still allows to take; begins a period if the last is over.
    function _room(bytes32 subject, uint256 collateral) private returns (uint256) {
        Period storage p = _periods[subject];
        if (p.start == 0 || block.timestamp >= p.start + SLASH_PERIOD) {
            (p.start, p.base, p.taken) = (uint48(block.timestamp), uint104(collateral), 0);
        }
        uint256 most = Money.share(p.base, slashCapBps);
        return most > p.taken ? most - p.taken : 0;
    }
}
