// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IEmissions} from "./interfaces/IEmissions.sol";
import {IRewards} from "./interfaces/IRewards.sol";
import {Committee} from "./rewards/Committee.sol";
import {Leaves} from "./libraries/Leaves.sol";
import {Vests} from "./libraries/Vests.sol";
import {Money} from "./libraries/Money.sol";

/// @title What hosts, checkers and indexers earn.
/// @notice For each epoch the committee signs the root of everybody's totals since the beginning.
/// After a contest window it counts; what it adds is drawn from the emissions, whose caps hold
/// whatever the committee signs. A claim turns what is new of a total into a grant; a grant is
/// released over time and can be slashed until then.
contract Rewards is IRewards, Committee, AccessManaged {
    using SafeERC20 for IERC20;

    /// @dev One slot for each account and stream; all in units of 1e9 wei.
    struct Account {
        uint64 claimed;
        uint64 pending;
        uint64 debt;
        uint64 grants;
    }

    /// @dev One slot; the amounts in units of 1e9 wei.
    struct Grant {
        uint64 amount;
        uint64 released;
        uint48 at;
        Vests.Plan plan;
    }

    /// @dev What waits for its window to end.
    struct Proposal {
        Epoch epoch;
        uint48 readyAt;
        uint48 contestedAt;
        address contester;
        uint128 bond;
    }

    /// @notice A stream; one slot. The first three in units of 1e9 wei, the others of 1e15 wei.
    /// @param total everything that counts since the beginning
    /// @param claimed of it
    /// @param withheld what fees and fast plans left for the treasury
    /// @param minimum the least claim
    /// @param fee what a claim costs
    struct Stream {
        uint64 total;
        uint64 claimed;
        uint64 withheld;
        uint32 minimum;
        uint32 fee;
    }

    /// @notice Streams: hosts, checkers, indexers.
    uint8 public constant STREAMS = 3;
    uint8 private constant CHECKERS = 1;
    /// @notice All amounts of claims are rounded down to this many wei.
    uint256 public constant UNIT = 1e9;
    /// @notice How long the court has to decide a contest; then the proposal falls.
    uint256 public constant COURT_TERM = 14 days;
    /// @notice The unit of minimum and fee.
    uint256 public constant TERM_UNIT = 1e15;
    uint256 private constant UNITS_A_TERM = 1e6;
    /// @notice The highest minimum and fee of a claim: 1,000 ATH.
    uint32 public constant TERMS_MAX = 1_000_000;

    /// @notice ATH.
    IERC20 public immutable token;
    /// @notice Where rewards come from.
    IEmissions public immutable emissions;
    /// @notice Who receives fees, forfeits and lost bonds.
    address public immutable treasury;

    /// @notice The root that claims are proven against.
    bytes32 public root;
    /// @notice The last epoch that counts.
    uint32 public epoch;
    /// @notice How long a proposal can be contested.
    uint32 public window = 1 days;
    /// @notice What a contest costs if it is wrong.
    uint128 public contestBond = 10_000e18;
    /// @notice The streams.
    Stream[3] public streams;
    /// @notice Whether what the committee signed was dropped; it cannot be proposed again.
    mapping(bytes32 digest => bool) public dropped;

    Proposal private _proposal;
    mapping(address account => mapping(uint8 stream => Account)) private _accounts;
    mapping(address account => mapping(uint8 stream => mapping(uint256 number => Grant))) private _grants;

    /// @notice The committee proposed an epoch; `data` is the hash of the published leaves.
    event Proposed(uint32 indexed epoch, bytes32 root, bytes32 data, uint256 readyAt);
    /// @notice Somebody says that a proposal is wrong.
    event Contested(uint32 indexed epoch, address indexed contester, bytes32 evidence);
    /// @notice A proposal was dropped.
    event Dropped(uint32 indexed epoch, bytes32 root);
    /// @notice A contest was wrong.
    event Upheld(uint32 indexed epoch, bytes32 root);
    /// @notice An epoch counts.
    event Accepted(uint32 indexed epoch, bytes32 root, uint256 hosts, uint256 checkers, uint256 indexers);
    /// @notice What was new of a total became a grant.
    event Claimed(
        address indexed account,
        uint8 indexed stream,
        uint256 number,
        uint256 granted,
        uint256 total,
        Vests.Plan plan
    );
    /// @notice A part of a grant was paid out.
    event Released(
        address indexed account, uint8 indexed stream, uint256 number, uint256 paid, uint256 withheld
    );
    /// @notice A part of what was pending was taken as a penalty.
    event Forfeited(address indexed account, uint8 indexed stream, uint256 amount);
    /// @notice Fees and what fast plans gave up went to the treasury.
    event Swept(uint8 indexed stream, uint256 amount);
    /// @notice A stream's minimum and fee changed.
    event TermsSet(uint8 indexed stream, uint32 minimum, uint32 fee);
    /// @notice The contest window and bond changed.
    event ContestSet(uint32 window, uint128 bond);

    /// @notice Another epoch is awaited, or a proposal is under way.
    error WrongEpoch(uint32 awaited);
    /// @notice Not before `at`.
    error NotYet(uint256 at);
    /// @notice A number is out of its bounds.
    error Range();
    /// @notice The proof does not lead to the root.
    error Proof();
    /// @notice Nothing to claim, or less than the minimum.
    error Nothing();
    /// @notice The plan is not for this stream.
    error WrongPlan();
    /// @notice Only the account itself can claim here.
    error OnlyAccount();
    /// @notice There is no such contest.
    error NotContested();

    /// @param token_ ATH
    /// @param emissions_ where rewards come from
    /// @param treasury_ who receives fees and forfeits
    /// @param authority_ the access manager
    /// @param members the first committee
    /// @param threshold how many of it must sign
    constructor(
        IERC20 token_,
        IEmissions emissions_,
        address treasury_,
        address authority_,
        address[] memory members,
        uint256 threshold
    ) AccessManaged(authority_) {
        (token, emissions, treasury) = (token_, emissions_, treasury_);
        _setCommittee(members, threshold);
        (streams[CHECKERS].minimum, streams[CHECKERS].fee) = (30_000, 5_000);
    }

    /// @notice Proposes the next epoch, once it is over. Anyone may who has the signatures.
    /// @param next the epoch as the committee signed it
    /// @param signatures of different members, sorted by their addresses
    function propose(Epoch calldata next, bytes[] calldata signatures) external {
        if (next.number != epoch + 1 || _proposal.readyAt != 0) revert WrongEpoch(epoch + 1);
        uint256 end = emissions.epochEnd(next.number);
        if (block.timestamp < end) revert NotYet(end);
        bytes32 digest = epochHash(next);
        if (dropped[digest]) revert Range();
        _checkSigned(digest, signatures);
        emissions.check(_added(next));
        uint48 readyAt = uint48(block.timestamp + window);
        _proposal = Proposal(next, readyAt, 0, address(0), 0);
        emit Proposed(next.number, next.root, next.data, readyAt);
    }

    /// @notice Contests the proposal, with a bond that is lost if the contest is wrong.
    /// @param evidence hash of what shows it
    function contest(bytes32 evidence) external {
        Proposal storage p = _proposal;
        if (p.readyAt == 0 || p.contester != address(0) || block.timestamp >= p.readyAt) {
            revert NotContested();
        }
        (p.contester, p.contestedAt, p.bond) = (msg.sender, uint48(block.timestamp), contestBond);
        emit Contested(p.epoch.number, msg.sender, evidence);
        token.safeTransferFrom(msg.sender, address(this), p.bond);
    }

    /// @notice Decides a contest, by the court role. The contester gets back its bond, never more.
    /// @param right whether the contest is right, so that the proposal falls
    function decide(bool right) external restricted {
        Proposal memory p = _proposal;
        if (p.contester == address(0)) revert NotContested();
        if (right) return _drop(p);
        (_proposal.contester, _proposal.bond) = (address(0), 0);
        _proposal.readyAt = uint48(block.timestamp);
        emit Upheld(p.epoch.number, p.epoch.root);
        token.safeTransfer(treasury, p.bond);
    }

    /// @notice Makes the proposal count once its window is over. A contest that the court leaves
    /// open lets it fall instead. Anyone may.
    function accept() external {
        Proposal memory p = _proposal;
        if (p.readyAt == 0) revert WrongEpoch(epoch + 1);
        uint256 at = p.contester == address(0) ? p.readyAt : p.contestedAt + COURT_TERM;
        if (block.timestamp < at) revert NotYet(at);
        if (p.contester != address(0)) return _drop(p);
        delete _proposal;
        uint256[3] memory added = _added(p.epoch);
        for (uint256 i; i < STREAMS; ++i) {
            streams[i].total += uint64(added[i] / UNIT);
        }
        (root, epoch) = (p.epoch.root, p.epoch.number);
        emit Accepted(epoch, root, added[0], added[1], added[2]);
        emissions.draw(added);
        emissions.advance(p.epoch.units);
    }

    /// @notice Turns what is new of an account's total into a grant. Anyone may where it
    /// costs nothing; a checker chooses its plan itself, and who pays a fee chooses when.
    /// @param total the account's total since the beginning, in wei, as in the leaf
    function claim(address account, uint8 stream, uint256 total, Vests.Plan plan, bytes32[] calldata proof)
        external
    {
        if (!MerkleProof.verifyCalldata(proof, root, Leaves.reward(account, stream, total))) revert Proof();
        _checkPlan(account, stream, plan);
        Account memory a = _accounts[account][stream];
        uint256 units = total / UNIT;
        if (units <= a.claimed) revert Nothing();
        uint256 kept = _take(stream, units - a.claimed, plan, msg.sender == account);
        _accounts[account][stream] = Account(uint64(units), a.pending + uint64(kept), a.debt, a.grants + 1);
        _grants[account][stream][a.grants] = Grant(uint64(kept), 0, uint48(block.timestamp), plan);
        emit Claimed(account, stream, a.grants, kept * UNIT, total, plan);
    }

    /// @notice Sends what fees and fast plans left to the treasury. Anyone may.
    function sweep(uint8 stream) external {
        uint256 amount = streams[stream].withheld * UNIT;
        if (amount == 0) revert Nothing();
        streams[stream].withheld = 0;
        emit Swept(stream, amount);
        token.safeTransfer(treasury, amount);
    }

    /// @notice Pays out what is due of an account's grants. Anyone may; it goes to the account.
    function release(address account, uint8 stream, uint256[] calldata numbers) external {
        Account memory a = _accounts[account][stream];
        uint256 sum;
        for (uint256 i; i < numbers.length; ++i) {
            Grant storage g = _grants[account][stream][numbers[i]];
            uint256 due = Vests.vested(g.plan, g.amount, block.timestamp - g.at) - g.released;
            if (due == 0) continue;
            g.released += uint64(due);
            uint256 withheld = Math.min(due, a.debt);
            a.debt -= uint64(withheld);
            a.pending -= uint64(due);
            sum += due - withheld;
            emit Released(account, stream, numbers[i], (due - withheld) * UNIT, withheld * UNIT);
        }
        _accounts[account][stream] = a;
        if (sum != 0) token.safeTransfer(account, sum * UNIT);
    }

    /// @inheritdoc IRewards
    function forfeit(address account, uint256 amount) external restricted returns (uint256 taken) {
        uint256 wanted = amount / UNIT;
        for (uint8 stream; stream < STREAMS && wanted != 0; ++stream) {
            Account storage a = _accounts[account][stream];
            uint256 part = Math.min(wanted, a.pending - a.debt);
            if (part == 0) continue;
            a.debt += uint64(part);
            wanted -= part;
            taken += part * UNIT;
            emit Forfeited(account, stream, part * UNIT);
        }
        if (taken != 0) token.safeTransfer(msg.sender, taken);
    }

    /// @notice Sets another committee, of 1 to 32, and how many of it must sign (more than half).
    function setCommittee(address[] calldata members, uint256 threshold) external restricted {
        _setCommittee(members, threshold);
    }

    /// @notice Sets the least claim of a stream and what a claim costs, in units of 1e15 wei.
    function setTerms(uint8 stream, uint32 minimum, uint32 fee) external restricted {
        if (stream >= STREAMS || minimum > TERMS_MAX || fee > minimum) revert Range();
        (streams[stream].minimum, streams[stream].fee) = (minimum, fee);
        emit TermsSet(stream, minimum, fee);
    }

    /// @notice Sets the contest window (1 hour to 14 days) and bond.
    function setContest(uint32 window_, uint128 bond) external restricted {
        if (window_ < 1 hours || window_ > 14 days || bond > 1_000_000e18) revert Range();
        (window, contestBond) = (window_, bond);
        emit ContestSet(window_, bond);
    }

    /// @notice How an account stands in a stream, in wei.
    /// @return claimed of its total
    /// @return pending granted and not yet released
    /// @return debt what releases withhold, as a penalty
    /// @return grants how many there were
    function accountOf(address account, uint8 stream)
        external
        view
        returns (uint256 claimed, uint256 pending, uint256 debt, uint256 grants)
    {
        Account memory a = _accounts[account][stream];
        return (a.claimed * UNIT, a.pending * UNIT, a.debt * UNIT, a.grants);
    }

    /// @notice A grant, and what of it is due now, in wei.
    function grantOf(address account, uint8 stream, uint256 number)
        external
        view
        returns (uint256 amount, uint256 released, uint256 due, uint48 at, Vests.Plan plan)
    {
        Grant memory g = _grants[account][stream][number];
        uint256 open = g.at == 0 ? 0 : Vests.vested(g.plan, g.amount, block.timestamp - g.at) - g.released;
        return (g.amount * UNIT, g.released * UNIT, open * UNIT, g.at, g.plan);
    }

    /// @notice The proposal under way, if there is one.
    function proposal() external view returns (Proposal memory) {
        return _proposal;
    }

    /// @dev Takes a claim from its stream; what of it is granted. No stream gives more than its
    /// total, whatever the leaves say.
    function _take(uint8 stream, uint256 fresh, Vests.Plan plan, bool own) private returns (uint256 kept) {
        Stream memory s = streams[stream];
        if (s.fee != 0 && !own) revert OnlyAccount();
        if (fresh > s.total - s.claimed) revert Range();
        if (fresh < s.minimum * UNITS_A_TERM) revert Nothing();
        kept = fresh - s.fee * UNITS_A_TERM;
        if (plan == Vests.Plan.CheckerFast) kept = Money.share(kept, Vests.FAST_BPS);
        s.claimed += uint64(fresh);
        s.withheld += uint64(fresh - kept);
        streams[stream] = s;
    }

    function _checkPlan(address account, uint8 stream, Vests.Plan plan) private view {
        bool checker = plan != Vests.Plan.Host;
        if (checker != (stream == CHECKERS)) revert WrongPlan();
        if (checker && msg.sender != account) revert OnlyAccount();
    }

    /// @dev What an epoch adds to the totals, which never fall; rounded down to units.
    function _added(Epoch memory next) private view returns (uint256[3] memory added) {
        for (uint256 i; i < STREAMS; ++i) {
            uint256 units = next.totals[i] / UNIT;
            if (units < streams[i].total || units > type(uint64).max) revert Range();
            added[i] = (units - streams[i].total) * UNIT;
        }
    }

    function _drop(Proposal memory p) private {
        delete _proposal;
        dropped[epochHash(p.epoch)] = true;
        emit Dropped(p.epoch.number, p.epoch.root);
        token.safeTransfer(p.contester, p.bond);
    }
}
