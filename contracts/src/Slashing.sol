// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IRefunds} from "./interfaces/IRefunds.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {IRewards} from "./interfaces/IRewards.sol";
import {IStaking} from "./interfaces/IStaking.sol";
import {Money} from "./libraries/Money.sol";

/// @title Penalties: proposed with evidence, open to appeal, then carried out.
/// @notice Rules are versioned; a case is judged by the version under which it was opened. A
/// penalty grows with convictions of the same kind. It is taken from pending rewards first, then
/// from stake; the harmed buyer is made whole up to a cap, who reported gets at most a fixed
/// bounty, the rest goes to the treasury. Nobody who accuses or decides is paid a share.
contract Slashing is AccessManaged, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice Who was at fault. Only a provider's fault is punished.
    enum Cause {
        Unknown,
        Provider,
        Buyer,
        Network
    }

    /// @notice How a case stands.
    enum Stage {
        None,
        Open,
        Appealed,
        Dismissed,
        Executing,
        Executed
    }

    /// @notice A rule: shares of the required stake by how often it happened lately, in basis points.
    /// @param first for the first time
    /// @param second within `memoryPeriod`
    /// @param further from the third time on
    /// @param buyer the most of a penalty that goes to the harmed buyer
    /// @param memoryPeriod seconds for which a conviction counts
    struct Rule {
        uint16 first;
        uint16 second;
        uint16 further;
        uint16 buyer;
        uint32 memoryPeriod;
    }

    /// @notice What a case is about.
    struct Charge {
        bytes32 subject;
        uint16 code;
        Cause cause;
        bytes32 evidence;
        address buyer;
        uint128 harm;
        address reporter;
    }

    /// @dev A case.
    struct Case {
        Charge charge;
        Stage stage;
        uint32 version;
        uint48 appealUntil;
        uint48 decideUntil;
        uint128 left;
        uint128 toBuyer;
        uint128 bounty;
    }

    /// @dev Convictions of a subject under one code.
    struct Record {
        uint32 count;
        uint48 last;
    }

    /// @notice How long the court has to decide an appeal; then the case is dismissed.
    uint256 public constant COURT_TERM = 30 days;
    /// @notice The shortest appeal window that can be set.
    uint32 public constant APPEAL_MIN = 1 days;
    /// @notice The highest bounty that can be set, and its highest share of a penalty.
    uint128 public constant BOUNTY_MAX = 10_000e18;
    /// @notice The highest share of a penalty that a bounty can be, in basis points.
    uint256 public constant BOUNTY_MAX_BPS = 1_000;

    /// @notice ATH.
    IERC20 public immutable token;
    /// @notice Where subjects are registered.
    IRegistry public immutable registry;
    /// @notice Where stakes are.
    IStaking public immutable staking;
    /// @notice Where pending rewards are.
    IRewards public immutable rewards;
    /// @notice Where payments can be given back.
    IRefunds public immutable escrow;
    /// @notice Who receives what is left.
    address public immutable treasury;

    /// @notice The present version of the rules.
    uint32 public version;
    /// @notice Seconds in which an owner can appeal.
    uint32 public appealWindow = 3 days;
    /// @notice What who reported gets, at most.
    uint128 public bounty = 1_000e18;
    /// @notice The number of the last case.
    uint256 public cases;

    mapping(uint32 version => mapping(uint16 code => Rule)) private _rules;
    mapping(uint256 number => Case) private _cases;
    mapping(bytes32 subject => mapping(uint16 code => Record)) private _records;
    mapping(bytes32 evidence => bool) private _used;

    /// @notice A version of the rules began.
    event RulesSet(uint32 indexed version, uint16[] codes, Rule[] rules);
    /// @notice A case was opened.
    event Opened(
        uint256 indexed number, bytes32 indexed subject, uint16 code, bytes32 evidence, uint256 penalty
    );
    /// @notice The owner appeals.
    event Appealed(uint256 indexed number, bytes32 statement);
    /// @notice The court decided; `penalty` is what remains of it.
    event Decided(uint256 indexed number, uint256 penalty);
    /// @notice A case ended without a penalty.
    event Dismissed(uint256 indexed number);
    /// @notice A penalty was taken, from rewards and from stake; `left` can be taken later.
    event Executed(
        uint256 indexed number, bytes32 indexed subject, uint256 fromRewards, uint256 fromStake, uint256 left
    );
    /// @notice Where what was taken went.
    event Shared(
        uint256 indexed number, address indexed buyer, uint256 toBuyer, uint256 toReporter, uint256 toTreasury
    );
    /// @notice The appeal window and the bounty changed.
    event TermsSet(uint32 appealWindow, uint128 bounty);

    /// @notice No such rule, subject, operator or case, or not at this stage.
    error Range();
    /// @notice The provider was not at fault.
    error NotProvider();
    /// @notice The same evidence was used before.
    error Used();
    /// @notice Not the subject's owner.
    error NotOwner();
    /// @notice Not before `at`.
    error NotYet(uint256 at);
    /// @notice Not after `at`.
    error TooLate(uint256 at);

    /// @param token_ ATH
    /// @param registry_ where subjects are registered
    /// @param staking_ where stakes are
    /// @param rewards_ where pending rewards are
    /// @param escrow_ where payments can be given back
    /// @param treasury_ who receives what is left
    /// @param authority_ the access manager
    constructor(
        IERC20 token_,
        IRegistry registry_,
        IStaking staking_,
        IRewards rewards_,
        IRefunds escrow_,
        address treasury_,
        address authority_
    ) AccessManaged(authority_) {
        (token, registry, staking, rewards) = (token_, registry_, staking_, rewards_);
        (escrow, treasury) = (escrow_, treasury_);
    }

    /// @notice Opens a case, by the proposer role.
    function open(Charge calldata charge) external restricted returns (uint256 number) {
        if (charge.cause != Cause.Provider) revert NotProvider();
        if (registry.subjectOf(charge.subject).owner == address(0)) revert Range();
        bytes32 use = keccak256(abi.encode(charge.subject, charge.code, charge.evidence));
        if (charge.evidence == 0 || _used[use]) revert Used();
        _used[use] = true;
        uint256 penalty = penaltyOf(charge.subject, charge.code);
        if (penalty == 0) revert Range();
        number = ++cases;
        Case storage c = _cases[number];
        (c.charge, c.stage, c.version) = (charge, Stage.Open, version);
        (c.appealUntil, c.left) = (uint48(block.timestamp + appealWindow), uint128(penalty));
        c.toBuyer = _buyersPart(charge, penalty, version);
        c.bounty = charge.reporter == address(0) ? 0 : bounty;
        emit Opened(number, charge.subject, charge.code, charge.evidence, penalty);
    }

    /// @notice Appeals, by the subject's owner, within the window.
    /// @param statement hash of what the owner says
    function appeal(uint256 number, bytes32 statement) external {
        Case storage c = _cases[number];
        if (c.stage != Stage.Open) revert Range();
        if (registry.subjectOf(c.charge.subject).owner != msg.sender) revert NotOwner();
        if (block.timestamp > c.appealUntil) revert TooLate(c.appealUntil);
        (c.stage, c.decideUntil) = (Stage.Appealed, uint48(block.timestamp + COURT_TERM));
        emit Appealed(number, statement);
    }

    /// @notice Decides an appeal, by the court role.
    /// @param penalty what remains of the penalty; never more than before
    function decide(uint256 number, uint128 penalty) external restricted {
        Case storage c = _cases[number];
        if (c.stage != Stage.Appealed || penalty > c.left) revert Range();
        if (block.timestamp > c.decideUntil) revert TooLate(c.decideUntil);
        emit Decided(number, penalty);
        if (penalty == 0) return _dismiss(number, c);
        (c.stage, c.left) = (Stage.Executing, penalty);
        c.toBuyer = _buyersPart(c.charge, penalty, c.version);
        _convict(c);
    }

    /// @notice Ends a case whose appeal the court left open. Anyone may.
    function lapse(uint256 number) external {
        Case storage c = _cases[number];
        if (c.stage != Stage.Appealed) revert Range();
        if (block.timestamp <= c.decideUntil) revert NotYet(c.decideUntil);
        _dismiss(number, c);
    }

    /// @notice Carries a penalty out. Anyone may. Where a period's cap leaves a part, it is carried
    /// out again later.
    function execute(uint256 number) external nonReentrant {
        Case storage c = _cases[number];
        if (c.stage == Stage.Open) {
            if (block.timestamp <= c.appealUntil) revert NotYet(c.appealUntil);
            c.stage = Stage.Executing;
            _convict(c);
        }
        if (c.stage != Stage.Executing) revert Range();
        uint256 wanted = c.left;
        address owner = registry.subjectOf(c.charge.subject).owner;
        uint256 fromRewards = rewards.forfeit(owner, wanted);
        uint256 fromStake = fromRewards < wanted ? staking.slash(c.charge.subject, wanted - fromRewards) : 0;
        uint256 left = wanted - fromRewards - fromStake;
        if (left != 0 && staking.collateralOf(c.charge.subject) == 0) left = 0;
        c.left = uint128(left);
        if (left == 0) c.stage = Stage.Executed;
        emit Executed(number, c.charge.subject, fromRewards, fromStake, left);
        _share(number, c, fromRewards + fromStake);
    }

    /// @notice Gives a lease's payments back to the buyer whom the convicted subject harmed, by the
    /// court role, from the account in the escrow of the subject's operator: the present one or, since
    /// who is convicted may name another, a former one.
    function refund(uint256 number, address operator, bytes16 lease, uint64 micros) external restricted {
        Case storage c = _cases[number];
        if ((c.stage != Stage.Executing && c.stage != Stage.Executed) || c.charge.buyer == address(0)) {
            revert Range();
        }
        if (!registry.isOperatorOf(c.charge.subject, operator)) revert Range();
        escrow.refund(c.charge.buyer, operator, lease, micros, c.charge.evidence);
    }

    /// @notice Begins a version of the rules. Open cases keep theirs.
    function setRules(uint16[] calldata codes, Rule[] calldata rules) external restricted {
        if (codes.length != rules.length || codes.length == 0) revert Range();
        uint32 next = ++version;
        for (uint256 i; i < codes.length; ++i) {
            Rule calldata r = rules[i];
            bool rising = r.first <= r.second && r.second <= r.further && r.further <= Money.BPS;
            if (!rising || r.buyer > Money.BPS) revert Range();
            _rules[next][codes[i]] = r;
        }
        emit RulesSet(next, codes, rules);
    }

    /// @notice Sets the appeal window (1 to 30 days) and the bounty.
    function setTerms(uint32 window, uint128 bounty_) external restricted {
        if (window < APPEAL_MIN || window > 30 days || bounty_ > BOUNTY_MAX) revert Range();
        (appealWindow, bounty) = (window, bounty_);
        emit TermsSet(window, bounty_);
    }

    /// @notice The penalty that a subject faces under a code of the present version, in wei.
    function penaltyOf(bytes32 subject, uint16 code) public view returns (uint256) {
        Rule memory rule = _rules[version][code];
        Record memory r = _records[subject][code];
        uint256 before = block.timestamp <= uint256(r.last) + rule.memoryPeriod ? r.count : 0;
        uint256 bps = before == 0 ? rule.first : before == 1 ? rule.second : rule.further;
        return Money.share(staking.requiredOf(subject), bps);
    }

    /// @notice A rule of a version.
    function ruleOf(uint32 version_, uint16 code) external view returns (Rule memory) {
        return _rules[version_][code];
    }

    /// @notice A case.
    function caseOf(uint256 number) external view returns (Case memory) {
        return _cases[number];
    }

    /// @notice How often a subject was convicted lately under a code, and when last.
    function recordOf(bytes32 subject, uint16 code) external view returns (Record memory) {
        return _records[subject][code];
    }

    function _buyersPart(Charge memory charge, uint256 penalty, uint32 rules) private view returns (uint128) {
        if (charge.buyer == address(0)) return 0;
        return uint128(Math.min(charge.harm, Money.share(penalty, _rules[rules][charge.code].buyer)));
    }

    function _convict(Case storage c) private {
        Record storage r = _records[c.charge.subject][c.charge.code];
        bool again = block.timestamp <= uint256(r.last) + _rules[c.version][c.charge.code].memoryPeriod;
        (r.count, r.last) = (again ? r.count + 1 : 1, uint48(block.timestamp));
    }

    function _dismiss(uint256 number, Case storage c) private {
        (c.stage, c.left) = (Stage.Dismissed, 0);
        emit Dismissed(number);
    }

    function _share(uint256 number, Case storage c, uint256 taken) private {
        uint256 toBuyer = Math.min(taken, c.toBuyer);
        c.toBuyer -= uint128(toBuyer);
        uint256 toReporter = Math.min(Math.min(c.bounty, Money.share(taken, BOUNTY_MAX_BPS)), taken - toBuyer);
        c.bounty -= uint128(toReporter);
        uint256 toTreasury = taken - toBuyer - toReporter;
        emit Shared(number, c.charge.buyer, toBuyer, toReporter, toTreasury);
        if (toBuyer != 0) token.safeTransfer(c.charge.buyer, toBuyer);
        if (toReporter != 0) token.safeTransfer(c.charge.reporter, toReporter);
        if (toTreasury != 0) token.safeTransfer(treasury, toTreasury);
    }
}
